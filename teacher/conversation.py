"""How a tokenizer spells a prompt: by its chat template where it has one, else as running text with a cue.

Knows where an answer begins (the glue before it) and what ends it; knows no model.
"""

from collections.abc import Sequence

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from teacher.errors import TeacherError
from teacher.prompt import Messages

_CUE, _CUE_END = "<label>", "</label>"  # as the examples in a prompt have it
_MARK = "ANSWER"


class Conversation:
    """Spell messages for one tokenizer; `glue` stands before an answer and `ending` after it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find out what the chat template takes; raise TeacherError when it takes no user message."""
        self.tokenizer = tokenizer
        self.is_chat = tokenizer.chat_template is not None
        self._takes_system = self.is_chat and self._takes_system_message()
        self._chat_glue, self._chat_ending = self._around_chat_answer() if self.is_chat else ("", "")

    def spell(self, messages: Messages, question: str) -> str:
        """Return the prompt up to the place where the answer begins.

        Without a chat template a prompt that ends in `question` gets the cue with which examples show their labels;
        one that ends in words of its own template keeps these as its cue.
        """
        system, user = (_joined(messages, role) for role in ("system", "user"))
        if self.is_chat:
            return self._render(system, user)
        text = "\n\n".join(part for part in (system, user) if part)
        return f"{text}\n{_CUE}" if text.endswith(question) else text

    def answers(self, prompt: str, names: Sequence[str], *, ended: bool) -> list[str]:
        """Return the strings that answer `prompt` with each of `names`, with what ends an answer when `ended`."""
        if self.is_chat:
            glue, ending = self._chat_glue, self._chat_ending
        else:
            glue, ending = ("", _CUE_END) if prompt.endswith(_CUE) else (" ", "\n")
        return [f"{glue}{name}{ending if ended else ''}" for name in names]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole prompts; a chat template has already spelt the special tokens."""
        rows = self.tokenizer(list(texts), add_special_tokens=not self.is_chat)["input_ids"] if texts else []
        return [list(row) for row in rows]

    def _render(self, system: str, user: str, answer: str | None = None) -> str:
        if system and not self._takes_system:
            system, user = "", f"{system}\n\n{user}"
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        # A template that lets a model think first is asked not to; others do not read the argument.
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answer is None, enable_thinking=False
        )
        return text

    def _takes_system_message(self) -> bool:
        self._takes_system = True
        try:
            return _MARK in self._render(_MARK, "text")
        except TemplateError:
            return False

    def _around_chat_answer(self) -> tuple[str, str]:
        """Return what the chat template puts between the prompt and an answer, and after it."""
        try:
            prompt, whole = self._render("", "text"), self._render("", "text", _MARK)
        except TemplateError as error:
            raise TeacherError(f"the tokenizer's chat template takes no user message: {error}; mend it") from error
        before, mark, after = whole[len(prompt) :].partition(_MARK)
        if not whole.startswith(prompt) or not mark or before.strip():
            return "", self.tokenizer.eos_token or ""
        return before, after.strip()


def _joined(messages: Messages, role: str) -> str:
    return "\n\n".join(message["content"] for message in messages if message["role"] == role)
