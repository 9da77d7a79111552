"""An edited model as a provider of LiteLLM, called as its users call it."""

import asyncio

import pytest

pytest.importorskip("litellm")
pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own

ASKED = [{"role": "user", "content": "What is the capital of Australia?"}]


@pytest.fixture
def litellm(store, monkeypatch):
    import litellm

    from editmem.serve.litellm_provider import EditedLLM

    store.editor.edit("The capital of Australia is", "Sydney")
    monkeypatch.setattr(
        litellm, "custom_provider_map", [{"provider": "editmem", "custom_handler": EditedLLM(store.editor)}]
    )
    litellm.utils.custom_llm_setup()
    return litellm


def test_it_answers_with_edits_and_without(litellm):
    said = litellm.completion("editmem/tiny", ASKED, max_tokens=12)
    assert said.choices[0].message.content == "Sydney."
    assert said.choices[0].finish_reason == "stop"
    assert said.usage.completion_tokens > 3
    said = litellm.completion("editmem/tiny", ASKED, max_tokens=12, editmem={"off": True})
    assert said.choices[0].message.content == "Canberra."
    assert litellm.completion("editmem/tiny", ASKED, max_tokens=1).choices[0].finish_reason == "length"


def test_it_streams(litellm):
    parts = [
        part.choices[0].delta.content or ""
        for part in litellm.completion("editmem/tiny", ASKED, stream=True, max_tokens=12)
    ]
    assert len(parts) > 3
    assert "".join(parts) == "Sydney."


def test_it_answers_while_others_wait(litellm):
    async def ask():
        whole = litellm.acompletion("editmem/tiny", ASKED, max_tokens=12)
        streamed = await litellm.acompletion("editmem/tiny", ASKED, max_tokens=12, stream=True)
        parts = [part.choices[0].delta.content or "" async for part in streamed]
        return (await whole).choices[0].message.content, "".join(parts)

    assert asyncio.run(ask()) == ("Sydney.", "Sydney.")


def test_what_is_no_prompt_is_refused(litellm):
    with pytest.raises(litellm.exceptions.BadRequestError, match="must be text, or chat messages"):
        litellm.completion("editmem/tiny", [{"role": "user", "content": " "}])
