"""What a prompt becomes: text by a template, tokens by the engine's tokenizer. Knows the model's templates, its BOS and
what its vectors allow; what is generated from a prompt is `intake.py`'s.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec

from backends.contract import Engine, EngineInfo
from runner.errors import ContextLengthExceeded, InvalidRequest, UnsupportedFeature, WrongKind
from runner.wire.messages import Start, Tokenize, Tokenized
from runner.wire.requests import ChatPrompt, EditPrompt, Prompt, TextPrompt, TokenPrompt
from runner.worker.chat import CompletionTemplate, EditTemplate, TemplateError
from runner.worker.chat_shapes import ChatShapes
from runner.worker.control_texts import Piece
from runner.worker.infill import PREFIX, SUFFIX, find_infill
from runner.worker.prefix_index import common_length


def param_of(prompt: Prompt) -> str:
    """The request's field that a prompt came in, for errors."""
    match prompt:
        case ChatPrompt():
            return prompt.param
        case EditPrompt():
            return "input"
    return "prompt"


class PromptReader:
    def __init__(self, engine: Engine, info: EngineInfo, start: Start) -> None:
        self._engine = engine
        self._info = info
        self._can_cut_vectors = start.matryoshka
        texts = start.template
        self.chats = ChatShapes(info, texts)
        self._edit_template = EditTemplate.of(info, texts.edit) if texts.edit else None
        self._completion_template = (
            CompletionTemplate.of(info, texts.completion) if texts.completion else None
        )
        self._system_prompt = texts.system_prompt
        self._infill_parts = None if info.text_only else find_infill(self._parsed)

    def pieces(self, prompt: TextPrompt | ChatPrompt | EditPrompt, *, as_given: bool = False) -> list[Piece]:
        """The prompt as text; one that is text stays it `as_given`, without the completion template. Raises
        InvalidRequest where the template refuses it."""
        match prompt:
            case TextPrompt(text, None):
                if self._completion_template is not None and text and not as_given:
                    return self._completion(self._completion_template, text)
                return [Piece(text, special=True)] if text else []
            case TextPrompt(text, suffix):
                return self._infill({PREFIX: text, SUFFIX: suffix or ""})
            case ChatPrompt():
                return self.chats.render(prompt)
            case EditPrompt():
                return self._edit(prompt)
            case _:
                assert_never(prompt)

    def unread(self, prompt: Prompt) -> tuple[str, ...]:
        """The names of the `template_kwargs` that the chat template does not read."""
        return self.chats.unread(prompt) if isinstance(prompt, ChatPrompt) else ()

    def text(self, prompt: Prompt) -> str:
        """The prompt for a text_only engine, whose tokenizer elsewhere puts BOS before it."""
        if isinstance(prompt, TokenPrompt):
            raise UnsupportedFeature(
                f"this model's engine ({self._info.engine}) takes text only; send the prompt as a text",
                param="prompt",
            )
        return "".join(piece.text for piece in self.pieces(prompt))

    def tokens(self, prompt: Prompt, *, param: str = "prompt", as_given: bool = False) -> list[int]:
        """Token ids of a prompt, with BOS where the model wants one and none is there yet. `param` names the field
        that the prompt came in; `as_given`: a text is not put into the completion template."""
        if isinstance(prompt, TokenPrompt):
            for token in prompt.tokens:
                if not 0 <= token < self._info.vocabulary:
                    raise InvalidRequest(
                        f"token id {token} is not in the vocabulary (0 to {self._info.vocabulary - 1})",
                        param=param,
                    )
            return list(prompt.tokens)
        return self._tokens_of(self.pieces(prompt, as_given=as_given), add_bos=True)

    def turn_tokens(self, prompt: Prompt, tokens: Sequence[int]) -> int:
        """How many of a chat's `tokens` are its turns; what comes behind them asks for an answer, and the next turn may
        not repeat it. 0 where that is of no use, or cannot be told."""
        is_asking = isinstance(prompt, ChatPrompt) and prompt.add_generation_prompt
        if self._info.prefix != "tip" or not is_asking:
            return 0
        try:
            turns = self.tokens(msgspec.structs.replace(prompt, add_generation_prompt=False))
        except InvalidRequest:
            return 0
        return common_length(turns, tokens, 0)

    def tokenized(self, message: Tokenize) -> Tokenized:
        """The answer to `message`."""
        self._check_tokenizer()
        if isinstance(message.prompt, TokenPrompt):
            tokens, text = self.tokens(message.prompt), self.detokenize(message.prompt.tokens)
        else:
            pieces = self.pieces(message.prompt, as_given=True)
            tokens = self._tokens_of(pieces, add_bos=message.add_special)
            text = "".join(piece.text for piece in pieces)
        data = self._data_of(tokens) if message.with_pieces else ()
        return Tokenized(message.call, tuple(tokens), text, data)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens included."""
        self._check_tokenizer()
        checked = self.tokens(TokenPrompt(tuple(tokens)), param="tokens")
        return b"".join(self._data_of(checked)).decode(errors="replace")

    def embed_batch(self, prompts: Sequence[Prompt], *, dimensions: int | None) -> list[list[int]]:
        """Token ids of texts to embed, checked against the context. Raises InvalidRequest and its kinds."""
        length = self._info.embedding_length
        if not length:
            raise WrongKind(
                "this model was not loaded for embeddings; set `embeddings: true` in its config.yaml",
                param="model",
            )
        if dimensions is not None and not self._can_cut_vectors:
            raise UnsupportedFeature(
                f"this model's vectors have {length} numbers and cannot be cut; leave `dimensions` out, or set "
                "`matryoshka: true` in its config.yaml if it was trained for that",
                param="dimensions",
            )
        if dimensions is not None and dimensions > length:
            raise InvalidRequest(
                f"dimensions is {dimensions}, but this model's vectors have {length} numbers",
                param="dimensions",
            )
        return [self._embed_tokens(prompt) for prompt in prompts]

    def _embed_tokens(self, prompt: Prompt) -> list[int]:
        tokens = self.tokens(prompt, param="input", as_given=True)
        if not tokens:
            raise InvalidRequest("the input is empty", param="input")
        most = self._info.embedding_tokens or self._info.context_tokens
        if len(tokens) > most:
            raise ContextLengthExceeded(
                f"the input has {len(tokens)} tokens; this model makes vectors of at most {most}",
                param="input",
                prompt_tokens=len(tokens),
                context_tokens=most,
            )
        return self._engine.framed(tokens)

    def _completion(self, template: CompletionTemplate, text: str) -> list[Piece]:
        try:
            return template.render(text, system_prompt=self._system_prompt)
        except TemplateError as error:
            raise InvalidRequest(str(error), param="prompt") from error

    def _edit(self, prompt: EditPrompt) -> list[Piece]:
        """By the edit template, or as a chat whose user says what to do and with what."""
        if self._edit_template is None and not self.chats:
            raise UnsupportedFeature(
                "this model has neither an edit template nor a chat template; give it one as template.edit in its "
                "config.yaml",
                param="instruction",
            )
        if self._edit_template is None:
            words = f"{prompt.instruction}\n\n{prompt.text}" if prompt.text else prompt.instruction
            return self.chats.render(
                ChatPrompt(messages=({"role": "user", "content": words},), param="input")
            )
        try:
            return self._edit_template.render(prompt, system_prompt=self._system_prompt)
        except TemplateError as error:
            raise InvalidRequest(str(error), param="input") from error

    def _parsed(self, text: str) -> list[int]:
        return self._engine.tokenize(text, special=True)

    def _infill(self, texts: Mapping[str, str]) -> list[Piece]:
        if self._infill_parts is None:
            raise UnsupportedFeature(
                "this model has no tokens for what belongs between two texts; leave `suffix` out",
                param="suffix",
            )
        # A text that looks like a mark is none.
        pieces = [Piece(texts.get(part, part), special=part not in texts) for part in self._infill_parts]
        return [piece for piece in pieces if piece.text]

    def _tokens_of(self, pieces: Sequence[Piece], *, add_bos: bool) -> list[int]:
        tokens: list[int] = []
        for piece in pieces:
            tokens += self._engine.tokenize(piece.text, special=piece.special)
        bos = self._info.bos_id
        if add_bos and self._info.adds_bos and bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def _data_of(self, tokens: Sequence[int]) -> tuple[bytes, ...]:
        return tuple([self._engine.token_bytes(token, special=True) for token in tokens])

    def _check_tokenizer(self) -> None:
        if self._info.text_only:
            raise UnsupportedFeature(
                f"this model's engine ({self._info.engine}) takes text and gives text: there is no tokenizer here"
            )
