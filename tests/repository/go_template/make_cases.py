"""Writes cases.json for render.go: every shape with every set of values of its kind, and every edge."""

import json
from pathlib import Path

import yaml

HERE = Path(__file__).parent


def main() -> None:
    shapes = yaml.safe_load((HERE / "shapes.yaml").read_text())
    edges = yaml.safe_load((HERE / "edges.yaml").read_text())
    cases = [
        {"name": f"{name} {i}", "kind": shape["kind"], "template": shape["template"], "data": data}
        for name, shape in shapes["shapes"].items()
        for i, data in enumerate(shapes["values"][shape["kind"]])
    ]
    names = {True: "yes", False: "no", None: "none"}  # how this reader takes these keys
    data = {names.get(key, key): value for key, value in edges["data"].items()}
    cases += [
        {"name": f"edge {i}", "kind": "map", "template": template}
        for i, template in enumerate(edges["templates"])
    ]
    written = {"edge_data": data, "cases": cases}
    (HERE / "cases.json").write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
