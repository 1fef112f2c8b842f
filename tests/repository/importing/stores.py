"""Makes other programs' stores of models in a folder, as these programs lay them out."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.ollama.image."


def ollama_model(
    store: Path,
    name: str,
    layers: Sequence[tuple[str, bytes | Path]],
    *,
    about: Mapping[str, Any] | None = None,
    media_type: str = MANIFEST,
) -> Path:
    """A model `host/owner/model/tag` of an Ollama store: layers are (kind, content), of which paths are linked. Returns
    the manifest."""
    listed = [
        {"mediaType": kind if "/" in kind else LAYER + kind, **_blob(store, content)}
        for kind, content in layers
    ]
    config = {"mediaType": "application/vnd.docker.container.image.v1+json"}
    config |= _blob(store, json.dumps(about or {"model_format": "gguf"}).encode())
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    content = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": listed}
    manifest.write_text(json.dumps(content))
    return manifest


def _blob(store: Path, content: bytes | Path) -> dict[str, Any]:
    data = content if isinstance(content, bytes) else content.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    path = store / "blobs" / f"sha256-{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and isinstance(content, Path):
        os.link(content, path)
    elif not path.exists():
        path.write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def hub_cache_model(
    cache: Path,
    repo: str,
    files: Mapping[str, bytes | Path],
    *,
    commit: str = COMMIT,
    ref: str | None = "main",
) -> Path:
    """A repository of the hub's cache: blobs by hash, a snapshot of links to them, a ref. Returns the snapshot."""
    home = cache / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    (home / "blobs").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        blob = home / "blobs" / hashlib.sha256(data).hexdigest()
        if not blob.exists():
            blob.write_bytes(data)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if ref is not None:
        (home / "refs").mkdir(exist_ok=True)
        (home / "refs" / ref).write_text(commit)
    return snapshot


def triton_model(
    repository: Path,
    name: str,
    arguments: Mapping[str, Any] | None,
    *,
    config: str = 'backend: "vllm"\ninstance_group [{count: 1 kind: KIND_MODEL}]\n',
    version: int = 1,
) -> Path:
    """A model of a Triton repository; `arguments` make its `model.json`. Returns its folder."""
    home = repository / name
    (home / str(version)).mkdir(parents=True)
    (home / "config.pbtxt").write_text(config)
    if arguments is not None:
        (home / str(version) / "model.json").write_text(json.dumps(arguments))
    return home
