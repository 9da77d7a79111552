"""An edited model as a provider of LiteLLM, in the same process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from litellm.llms.custom_llm import CustomLLM, CustomLLMError
from litellm.types.utils import GenericStreamingChunk, ModelResponse, Usage
from transformers import TextIteratorStreamer

from editmem.editor import Editor
from editmem.edits.edit import check_prompt
from editmem.errors import EditMemError

TOKENS = 256
"""Of an answer, where a request does not say."""


class EditedLLM(CustomLLM):
    """Answers LiteLLM's requests with the model of an editor.

    Registered with `litellm.custom_provider_map = [{"provider": "editmem", "custom_handler": EditedLLM(editor)}]` it is
    asked as the model `editmem/NAME`. Of a request it takes `messages`, `max_tokens`, `temperature`, `top_p`, `stream`,
    and `editmem={"off": true}` for the bare host. Generations run one after the other, each of one version of the
    memory.

    Args:
        editor: the editor.
    """

    def __init__(self, editor: Editor) -> None:
        super().__init__()
        self._editor = editor
        self._one = threading.Lock()

    def completion(  # type: ignore[override]
        self, model: str, messages: list, model_response: ModelResponse, optional_params: dict, **_: Any
    ) -> ModelResponse:
        inputs = self._inputs(messages)
        ids = self._generate(inputs, optional_params)[0, inputs["input_ids"].shape[1] :]
        model_response.choices[0].message.content = self._editor.tokenizer.decode(ids, skip_special_tokens=True)  # type: ignore[union-attr]
        model_response.choices[0].finish_reason = "length" if len(ids) == _most(optional_params) else "stop"
        model_response.model = model
        prompt = inputs["input_ids"].shape[1]
        usage = Usage(prompt_tokens=prompt, completion_tokens=len(ids), total_tokens=prompt + len(ids))
        model_response.usage = usage  # type: ignore[attr-defined]
        return model_response

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:  # type: ignore[override]
        return await asyncio.to_thread(self.completion, *args, **kwargs)

    def streaming(self, model: str, messages: list, optional_params: dict, **_: Any) -> Iterator[GenericStreamingChunk]:  # type: ignore[override]
        inputs = self._inputs(messages)
        streamer = TextIteratorStreamer(self._editor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        errors: list[Exception] = []

        def run() -> None:
            try:
                self._generate(inputs, optional_params, streamer=streamer)
            except Exception as error:
                errors.append(error)
                streamer.end()

        thread = threading.Thread(target=run, name="editmem-litellm", daemon=True)
        thread.start()
        for text in streamer:
            yield _chunk(text)
        thread.join()
        if errors:
            raise errors[0]
        yield _chunk("", finished=True)

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[GenericStreamingChunk]:  # type: ignore[override]
        chunks = self.streaming(*args, **kwargs)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

    def _inputs(self, messages: list) -> Any:
        try:
            check_prompt(messages)
        except EditMemError as error:
            raise CustomLLMError(400, str(error)) from error
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        return self._editor.tokenizer.apply_chat_template(messages, **options).to(self._editor.model.device)

    def _generate(self, inputs: Mapping[str, Any], params: Mapping[str, Any], **options: Any) -> Any:
        temperature, top_p = params.get("temperature"), params.get("top_p")
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature:
            sampling = {
                "do_sample": True,
                "temperature": float(temperature),
                "top_p": 1.0 if top_p is None else float(top_p),
            }
        off = bool((params.get("editmem") or {}).get("off"))
        with self._one, self._editor.pinned(), self._editor.off() if off else nullcontext():
            model: Any = self._editor.model
            return model.generate(**inputs, max_new_tokens=_most(params), **sampling, **options)


def _most(params: Mapping[str, Any]) -> int:
    return int(params.get("max_completion_tokens") or params.get("max_tokens") or TOKENS)


def _chunk(text: str, finished: bool = False) -> GenericStreamingChunk:
    reason = "stop" if finished else ""
    return GenericStreamingChunk(
        text=text, is_finished=finished, finish_reason=reason, usage=None, index=0, tool_use=None
    )
