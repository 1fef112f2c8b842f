"""Echo's tokenizer: one token per UTF-8 byte, then the control tokens."""

import re


class ByteTokenizer:
    """Ids 0..255 are bytes; `BOS`, `IM_START`, `IM_END` (which ends a generation) and `PAD` follow."""

    BOS = 256
    IM_START = 257
    IM_END = 258
    PAD = 259
    VOCABULARY = 260
    CONTROLS = ("<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
    CHAT_TEMPLATE = (
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )

    def __init__(self) -> None:
        self._ids = {text: 256 + index for index, text in enumerate(self.CONTROLS)}
        self._split = re.compile("(" + "|".join(map(re.escape, self.CONTROLS)) + ")")

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        if not special:
            return list(text.encode(errors="replace"))
        tokens: list[int] = []
        for part in self._split.split(text):
            control = self._ids.get(part)
            tokens += part.encode(errors="replace") if control is None else (control,)
        return tokens

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        if not 0 <= token < self.VOCABULARY:
            return b""
        if token < 256:
            return bytes((token,))
        return self.CONTROLS[token - 256].encode() if special else b""
