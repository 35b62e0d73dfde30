"""Facts about how a prompt is spelt for a tokenizer, with and without a chat template."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from teacher.conversation import Conversation
from teacher.errors import TeacherError

QUESTION = "Which label?"
MESSAGES = ({"role": "system", "content": "Labels: a, b."}, {"role": "user", "content": f"text\n{QUESTION}"})
_LOOP = "{% for message in messages %}"
CHAT = (
    _LOOP + "<|{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = (
    _LOOP + "{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT[len(_LOOP) :]
)
SPACED = _LOOP + (
    "{% if message.role == 'assistant' %} {{ message.content }}</s>"
    "{% else %}[INST]{{ message.content }}[/INST]{% endif %}{% endfor %}"
)
THINKING = CHAT[: -len("{% endif %}")] + "{% if enable_thinking %}<think>{% endif %}{% endif %}"


def conversation(template: str | None) -> Conversation:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens(sorted(pre_tokenizers.ByteLevel.alphabet()))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    return Conversation(fast)


def test_a_chat_template_spells_messages_up_to_the_answer() -> None:
    assert conversation(CHAT).spell(MESSAGES, QUESTION) == (
        f"<|system|>\nLabels: a, b.<|end|>\n<|user|>\ntext\n{QUESTION}<|end|>\n<|assistant|>\n"
    )


def test_a_template_without_a_system_role_gets_its_words_in_the_users_message() -> None:
    assert conversation(NO_SYSTEM).spell(MESSAGES, QUESTION) == (
        f"<|user|>\nLabels: a, b.\n\ntext\n{QUESTION}<|end|>\n<|assistant|>\n"
    )


def test_a_template_that_thinks_first_is_asked_not_to() -> None:
    assert "<think>" not in conversation(THINKING).spell(MESSAGES, QUESTION)


@pytest.mark.parametrize(("template", "glue", "ending"), [(CHAT, "", "<|end|>"), (SPACED, " ", "</s>")])
def test_what_stands_around_an_answer_comes_from_the_chat_template(template: str, glue: str, ending: str) -> None:
    spelt = conversation(template)
    prompt = spelt.spell(MESSAGES, QUESTION)
    assert spelt.answers(prompt, ["a"], ended=False) == [f"{glue}a"]
    assert spelt.answers(prompt, ["a"], ended=True) == [f"{glue}a{ending}"]


def test_a_template_that_takes_no_user_is_refused() -> None:
    with pytest.raises(TeacherError, match="takes no user message: never"):
        conversation("{{ raise_exception('never') }}")


def test_running_text_ends_in_the_cue_that_examples_have() -> None:
    spelt = conversation(None)
    prompt = spelt.spell(MESSAGES, QUESTION)
    assert prompt == f"Labels: a, b.\n\ntext\n{QUESTION}\n<label>"
    assert spelt.answers(prompt, ["a"], ended=False) == ["a"]
    assert spelt.answers(prompt, ["a"], ended=True) == ["a</label>"]


def test_running_text_with_a_cue_of_its_own_keeps_it() -> None:
    spelt = conversation(None)
    prompt = spelt.spell(({"role": "user", "content": f"{QUESTION}\ntext\nIntent:"},), QUESTION)
    assert prompt.endswith("Intent:")
    assert spelt.answers(prompt, ["a"], ended=False) == [" a"]
    assert spelt.answers(prompt, ["a"], ended=True) == [" a\n"]
