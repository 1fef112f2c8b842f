"""Which template a chat is rendered by: one for the whole, which reads `messages`, or one for each message and one
around them; with tools perhaps another; the model's own or the configuration's.
"""

from backends.contract import EngineInfo
from runner.errors import InvalidRequest, UnsupportedFeature
from runner.wire.messages import TemplateTexts
from runner.wire.requests import ChatPrompt
from runner.worker.chat import ChatTemplate
from runner.worker.control_texts import Piece
from runner.worker.message_templates import MessageTemplates
from runner.worker.sandbox import CompiledTemplate, TemplateError

Shape = ChatTemplate | MessageTemplates


class ChatShapes:
    """`source` is all that the templates say, in which marks of calls and reasoning are looked for; `is_own`: the
    model's own template is used. Raises TemplateError where a template is not valid."""

    def __init__(self, info: EngineInfo, texts: TemplateTexts) -> None:
        self._info = info
        self._texts = texts
        own = info.chat_template
        self.is_own = bool(own) and (
            texts.prefers_own or not (texts.chat or texts.chat_message or texts.roles)
        )
        self._plain: Shape | None = None
        if self.is_own and own:
            self._plain = ChatTemplate.of(info, own)
        elif texts.chat:
            self._plain = self._shape("chat", texts.chat)
        elif texts.chat_message or texts.roles:
            self._plain = MessageTemplates(info, texts, None)
        uses_function = texts.function is not None and not (self.is_own and texts.prefers_own)
        self._with_tools = self._shape("function", texts.function or "") if uses_function else self._plain
        shapes = {id(each): each.source for each in (self._plain, self._with_tools) if each is not None}
        self.source = "\n".join(shapes.values())

    def __bool__(self) -> bool:
        """There is a template for chats without tools."""
        return self._plain is not None

    def unread(self, prompt: ChatPrompt) -> tuple[str, ...]:
        """The names of the `template_kwargs` that the template does not read."""
        shape = self._of(prompt)
        if shape is None:
            return ()
        return tuple(name for name in prompt.template_kwargs if name not in shape.variables)

    def render(self, prompt: ChatPrompt) -> list[Piece]:
        """Raises InvalidRequest where the template refuses the chat, UnsupportedFeature where there is none for it."""
        shape, variables = self._of(prompt), self._texts.variables
        if shape is None:
            raise UnsupportedFeature(
                "this model has no chat template; give it one as template.chat in its config.yaml, "
                "or use the completions endpoint",
                param=prompt.param,
            )
        if prompt.tools and isinstance(shape, MessageTemplates) and not shape.shows_tools:
            raise UnsupportedFeature(
                "this model's chat template does not show tools to the model; give it a template.function in its "
                "config.yaml, which reads Functions",
                param="tools",
            )
        try:
            if isinstance(shape, MessageTemplates):
                return shape.render(prompt, variables)
            return shape.render(prompt, variables, system_prompt=self._texts.system_prompt)
        except TemplateError as error:
            raise InvalidRequest(str(error), param=prompt.param) from error

    def _of(self, prompt: ChatPrompt) -> Shape | None:
        return self._with_tools if prompt.tools else self._plain

    def _shape(self, kind: str, source: str) -> Shape:
        template = CompiledTemplate(kind, source)
        if "messages" in template.variables:
            return ChatTemplate.of(self._info, source)
        return MessageTemplates(self._info, self._texts, template)
