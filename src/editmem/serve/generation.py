"""Transformers' handlers of the OpenAI API, on the model of an editor."""

import asyncio
import inspect
import json
import logging
import re
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase, ProcessorMixin
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.response import ResponseHandler
from transformers.cli.serving.utils import GenerateManager, GenerationState, _StreamError

from editmem.editor import Editor
from editmem.edits.edit import Prompt
from editmem.edits.explanation import Explanation
from editmem.errors import EditMemError
from editmem.serve.guard import Limits
from editmem.serve.schemas import ExplanationOut

_log = logging.getLogger(__name__)
OPTIONS = ("off", "explain")
MEDIA = ("image_url", "input_image", "video_url", "audio_url", "input_audio", "input_video", "input_file", "file")
PICTURE = re.compile(r"data:image/[\w.+-]+;base64,")
GENERATES = ("num_beams", "num_return_sequences")
CONFIG = {
    "begin_suppress_tokens", "bad_words_ids", "do_sample", "early_stopping", "epsilon_cutoff", "eta_cutoff",
    "eos_token_id", "exponential_decay_length_penalty", "length_penalty", "max_length", "max_new_tokens", "max_time",
    "min_length", "min_new_tokens", "min_p", "no_repeat_ngram_size", "num_beams", "num_return_sequences",
    "pad_token_id", "bos_token_id", "renormalize_logits", "repetition_penalty", "sequence_bias", "stop_strings",
    "suppress_tokens", "temperature", "top_k", "top_p", "typical_p", "use_cache",
}  # fmt: skip
"""What a request's `generation_config` may set: how tokens are chosen, and how many. Not how they are computed."""
MARKS = {"transformers_version", "_from_model_config"}
"""What a `generation_config` that was written by transformers has too, and that sets nothing."""
FAULTS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, TemplateError)
"""What transformers says to a malformed request."""


@dataclass
class Asked:
    """How one request is to be answered, and what came of that.

    Attributes:
        off: whether the bare host answers.
        explain: whether to say which edit acts.
        prompt: what is asked, once it has been read.
        version: of the memory that answered.
        explanation: of the prompt, in that version.
    """

    off: bool = False
    explain: bool = False
    prompt: Prompt | None = None
    version: int | None = None
    explanation: Explanation | None = None

    def shown(self) -> dict[str, Any]:
        """As the answer says it."""
        shown: dict[str, Any] = {"version": self.version, "off": self.off}
        if self.explanation is not None:
            found = ExplanationOut.of(self.explanation).model_dump(mode="json")
            shown |= {"edit": None if self.off else found["edit"], "candidates": found["candidates"]}
        return shown


_asked: ContextVar[Asked] = ContextVar("editmem_asked")


class EditedModel(ModelManager):
    """The model of an editor, as the only one that is served.

    Args:
        editor: the editor.
        name: under which it is served.
    """

    def __init__(self, editor: Editor, name: str) -> None:
        super().__init__()
        self._editor, self.force_model = editor, name

    @staticmethod
    def process_model_name(model_id: str) -> str:
        return model_id

    def load_model_and_processor(self, *_: Any, **__: Any) -> tuple[Any, Any]:
        return self._editor.model, self._editor.tokenizer

    def list_models(self, cache_dir: str | None = None) -> list[dict]:
        return [{"id": self.force_model, "object": "model", "created": 0, "owned_by": "editmem"}]

    def shutdown(self) -> None:
        """The editor's model stays."""


class _InOneVersion(GenerateManager):
    """Generations, each of one version of the memory from its first token to its last."""

    def __init__(self, editor: Editor, most: int) -> None:
        super().__init__()
        self._editor, self._most = editor, most
        self._inside = 0
        self._lock = threading.Lock()

    def submit(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        self._submitted: Future = super().submit(self._pinned(fn), *args, **kwargs)
        return self._submitted

    def async_submit(self, fn: Callable, *args: Any, **kwargs: Any) -> Any:
        return super().async_submit(self._pinned(fn), *args, **kwargs)

    def generate_streaming(  # type: ignore[override]
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, **kwargs: Any
    ) -> Any:
        """As transformers does it, and what fails before the first token ends the answer too."""
        _fit(inputs, gen_config, self._editor)
        if (gen_config.num_beams or 1) > 1:
            raise HTTPException(400, "an answer that is searched for with beams cannot be streamed")
        loop = asyncio.get_running_loop()
        queue, streamer = super().generate_streaming(model, processor, inputs, gen_config, **kwargs)

        def tell(done: Future) -> None:
            if error := done.exception():
                loop.call_soon_threadsafe(queue.put_nowait, _StreamError(str(error)))

        self._submitted.add_done_callback(tell)
        return queue, streamer

    async def generate_non_streaming(  # type: ignore[override]
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, **kwargs: Any
    ) -> Any:
        _fit(inputs, gen_config, self._editor)
        return await super().generate_non_streaming(model, processor, inputs, gen_config, **kwargs)

    def _pinned(self, fn: Callable) -> Callable:
        editor, asked = self._editor, _asked.get()

        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                with editor.pinned() as asked.version:
                    if asked.explain and asked.prompt is not None:
                        asked.explanation = editor.explain(asked.prompt)
                    with editor.off() if asked.off else nullcontext():
                        return fn(*args, **kwargs)
            finally:
                self._count(-1)

        if self._inside >= self._most:
            raise HTTPException(503, f"{self._inside} requests are waiting already", headers={"retry-after": "5"})
        self._count(1)
        return run

    def _count(self, more: int) -> None:
        with self._lock:
            self._inside += more


class Generations(GenerationState):
    """One queue of generations. Rows that hold several texts are not made: edits cannot be told apart in them."""

    def __init__(self, editor: Editor, most: int) -> None:
        super().__init__()
        self._manager = _InOneVersion(editor, most)

    def use_continuous_batching(self, *_: Any, **__: Any) -> bool:
        return False

    def get_manager(self, *_: Any, **__: Any) -> GenerateManager:
        return self._manager


class _Edited:
    """What is said of edits in a request, and in its answer; mixed into a handler of transformers."""

    limits: Limits
    generation_state: GenerationState

    async def handle_request(self, body: dict, request_id: str) -> StreamingResponse | JSONResponse:
        asked = Asked()
        token = _asked.set(asked)
        try:
            _read(body, asked)
            response = await super().handle_request(body, request_id)  # type: ignore[misc]
        except EditMemError:
            raise
        except FAULTS as error:
            _log.warning("a request was refused: %r", error)
            raise HTTPException(400, f"the request cannot be answered: {error!r}") from error
        finally:
            _asked.reset(token)
        return _with(response, asked, self.closing(asked, request_id))

    def closing(self, asked: Asked, request_id: str) -> Callable[[], dict[str, Any]]:
        """The last event of a streamed answer, made when the answer is done."""
        kind = "text_completion" if isinstance(self, CompletionHandler) else "chat.completion.chunk"
        model = self.model_manager.force_model  # type: ignore[attr-defined]
        named = {"id": request_id, "object": kind, "created": 0, "model": model, "choices": []}
        return lambda: {**named, "editmem": asked.shown()}

    def get_processor_inputs_from_messages(self, messages: list[dict], modality: Any) -> list[dict]:
        inputs: list[dict] = super().get_processor_inputs_from_messages(messages, modality)  # type: ignore[misc]
        _asked.get().prompt = [{"role": m["role"], "content": _words(m["content"])} for m in inputs]
        return inputs

    def _build_generation_config(self, body: dict, *args: Any, **kwargs: Any) -> Any:
        _check_config(body.get("generation_config"))
        config = super()._build_generation_config(body, *args, **kwargs)  # type: ignore[misc]
        if (body.get("temperature") or 0) > 0:  # as the API has it, whatever the model's default is
            config.do_sample = True
        if not config.do_sample:
            config.temperature = config.top_p = None
        config.max_new_tokens = min(config.max_new_tokens or self.limits.tokens, self.limits.tokens)
        if config.max_new_tokens < 1:
            raise HTTPException(400, f"an answer must have 1 token or more, got {config.max_new_tokens}")
        for name in GENERATES:
            given = getattr(config, name, None)
            if not 1 <= (1 if given is None else given) <= self.limits.beams:
                raise HTTPException(400, f"{name} must be at most {self.limits.beams} and at least 1, got {given}")
        _check_stop(config.stop_strings)
        return config


class Chats(_Edited, ChatCompletionHandler):
    """`/v1/chat/completions`."""

    async def handle_request(self, body: dict, request_id: str) -> StreamingResponse | JSONResponse:
        messages = body.get("messages")
        if (
            not isinstance(messages, list)
            or not messages
            or not all(isinstance(m, dict) and "role" in m for m in messages)
        ):
            raise HTTPException(400, f"messages must be a list of messages with 'role' and 'content', got {messages!r}")
        return await super().handle_request(body, request_id)


class Completions(_Edited, CompletionHandler):
    """`/v1/completions`."""

    async def handle_request(self, body: dict, request_id: str) -> StreamingResponse | JSONResponse:
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise HTTPException(400, f"prompt must be text that is not empty, got {prompt!r}")
        return await super().handle_request(body, request_id)


class Responses(_Edited, ResponseHandler):
    """`/v1/responses`."""

    async def handle_request(self, body: dict, request_id: str) -> StreamingResponse | JSONResponse:
        if not isinstance(body.get("input"), (str, list)) or not body["input"]:
            raise HTTPException(400, f"input must be text or a list of items, got {body.get('input')!r}")
        body.setdefault("stream", False)  # as the API has it
        return await super().handle_request(body, request_id)

    def closing(self, asked: Asked, request_id: str) -> Callable[[], dict[str, Any]]:
        return lambda: {"type": "editmem.explanation", "response_id": request_id, "editmem": asked.shown()}


def _fit(inputs: Any, asked: Any, editor: Editor) -> None:
    """Refuse a prompt that the model cannot read, and have the answer end where the model's context does."""
    config: Any = editor.model.config
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return
    given = inputs["input_ids"].shape[-1]
    if given >= context:
        raise HTTPException(400, f"the prompt has {given} tokens; with an answer, {context} is the most it may have")
    asked.max_new_tokens = min(asked.max_new_tokens, context - given)


def _check_config(text: Any) -> None:
    """Refuse what does not say how tokens are chosen."""
    if text is None:
        return
    given = json.loads(text)
    if not isinstance(given, dict):
        raise HTTPException(400, f"generation_config must be the JSON of an object, got {text!r}")
    default = GenerationConfig().to_dict()
    for name in sorted(set(given) - CONFIG - MARKS):
        if name not in default or (given[name] != default[name] and given[name] is not False):  # which is unset, too
            raise HTTPException(400, f"generation_config may not set {name!r}")


def _check_stop(stop: Any) -> None:
    stops = [stop] if isinstance(stop, str) else stop
    if stops is not None and not (
        isinstance(stops, list) and stops and all(isinstance(each, str) and each for each in stops)
    ):
        raise HTTPException(400, f"stop must be text, or a list of texts, none of them empty, got {stop!r}")


def _read(body: dict, asked: Asked) -> None:
    """Note what a request says of edits, and take it out; refuse it where it asks for what is not served."""
    options = body.pop("editmem", None) or {}
    if not isinstance(options, Mapping) or any(k not in OPTIONS or not isinstance(v, bool) for k, v in options.items()):
        raise HTTPException(400, f"editmem must be an object with {' and '.join(OPTIONS)}, true or false: {options!r}")
    _check_template(body.get("chat_template_kwargs") or {})
    _check_media([body.get("messages"), body.get("input")])
    prompt = body.get("prompt")
    asked.off, asked.explain = options.get("off", False), options.get("explain", False)
    asked.prompt = prompt if isinstance(prompt, str) else None


_TEMPLATE = {
    name
    for kind in (PreTrainedTokenizerBase, ProcessorMixin)
    for name in inspect.signature(kind.apply_chat_template).parameters
}


def _check_template(options: Any) -> None:
    """Refuse what is no option of a template, but of how templates are found and used."""
    if not isinstance(options, Mapping):
        raise HTTPException(400, f"chat_template_kwargs must be an object, got {options!r}")
    if own := sorted(_TEMPLATE & set(options)):
        raise HTTPException(400, f"chat_template_kwargs may not set {own[0]!r}")


def _check_media(part: Any) -> None:
    """Refuse whatever would have the server open a file or an address."""
    if isinstance(part, list):
        for each in part:
            _check_media(each)
    if not isinstance(part, Mapping):
        return
    if part.get("type") in MEDIA:
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, Mapping) else url
        if part["type"] not in ("image_url", "input_image") or not isinstance(url, str) or not PICTURE.match(url):
            raise HTTPException(400, f"{part['type']}: only pictures as data:image/...;base64 URLs are read")
    for each in part.values():
        _check_media(each)


def _words(content: Any) -> str:
    """What a message says."""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part.get("type") == "text")


def _with(
    response: StreamingResponse | JSONResponse, asked: Asked, closing: Callable[[], dict[str, Any]]
) -> StreamingResponse | JSONResponse:
    """The answer, with what is to be said of edits."""
    shown = asked.explain or asked.off
    if isinstance(response, StreamingResponse):
        response.body_iterator = _closed(response.body_iterator, closing if shown else None)
        return response
    if not shown:
        return response
    document = json.loads(bytes(response.body))
    return JSONResponse({**document, "editmem": asked.shown()}, status_code=response.status_code)


async def _closed(events: AsyncIterable[Any], closing: Callable[[], dict[str, Any]] | None) -> AsyncIterator[Any]:
    async for event in events:
        before, error, message = event.rpartition(FAILED)
        if error:
            yield before + _event({"error": {"message": message.removesuffix('"}\n\n'), "type": "failed"}})
            return
        yield event
    if closing is not None:
        yield _event(closing())


FAILED = 'data: {"error": "'
"""With what transformers begins the event of a failure, whose message it does not escape."""


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"
