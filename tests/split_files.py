"""A GGUF file in parts, as large models come."""

import math
from pathlib import Path

import gguf


def split_gguf(source: Path, folder: Path, *, name: str = "model", parts: int = 3) -> list[Path]:
    """The same model as `name`-00001-of-... in `folder`."""
    reader = gguf.GGUFReader(source)
    most = math.ceil(len(reader.tensors) / parts)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(folder / f"{name}.gguf", architecture, split_max_tensors=most)
    for field in reader.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            sub_type = field.types[-1] if is_array else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    written = sorted(folder.glob(f"{name}-*.gguf"))
    assert len(written) == parts, f"{len(written)} parts were written"
    return written
