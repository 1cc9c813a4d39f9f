"""What surrounds every call: its request id, its token, the translation of errors, one log line, and the metrics.

Always holds: a call that came here ends with a status from the table in `errors`, or by gRPC's own hand because the
client left or the time to stop is over; our services are not reached without a token if
tokens are wanted; no text of an unexpected exception leaves the process; the request's id is in the trailing metadata
of every answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog
import uuid_utils
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_status import rpc_status

from jobwire_server.api.calls import Call, CallObserver, begin, this_call
from jobwire_server.api.errors import code_of, internal_status, status_of
from jobwire_server.api.fields import broken
from jobwire_server.api.unknown_fields import refuse_unknown_fields
from jobwire_server.domain.errors import JobwireError, UnknownField

REQUEST_ID = "x-request-id"

_ACCEPTED_ID = re.compile(r"[\x21-\x7e]{1,128}")
_STANDARD = ("grpc.health.", "grpc.reflection.")
_OF_RUNNING_WORK = ("QueueService/Subscribe", "QueueService/Ack")
"""These pass over fields that they do not know: a server that is taken back to an older release ends no running job."""
_OUR_FAULT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]

log = structlog.get_logger(__name__)


class _Unreadable:
    """Stands for a request that cannot be taken as it is, until the call can be refused like any other."""

    def __init__(self, error: JobwireError | None = None) -> None:
        self.error = error


Turn = Callable[[], AbstractAsyncContextManager[None]]
NameOf = Callable[[str | None], str]


class CallBoundary(grpc.aio.ServerInterceptor):
    """The one interceptor. `refusal` says with which error our services are to answer at the moment, if with any.

    `turns`, by method, is what to hold while a request is received: where requests are large, not all at once are.
    `name_of` names who calls by the metadata `authorization`, or raises; None: whoever calls is served. Health and
    reflection are open either way: probes bring no token, and what reflection tells is the public contract.
    """

    def __init__(
        self,
        observer: CallObserver,
        refusal: Callable[[], JobwireError | None],
        turns: Mapping[str, Turn],
        name_of: NameOf | None = None,
    ) -> None:
        self._observer = observer
        self._refusal = refusal
        self._turns = turns
        self._name_of = name_of
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self.arrived = 0
        """How many calls have come so far."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the method that is called, whatever its kind."""
        self.arrived += 1
        method = handler_call_details.method
        if (wrapped := self._wrapped.get(method)) is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is not None:
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        make, behaviour = _parts(handler)
        if turn := self._turns.get(method):
            # As if requests were a stream: nothing of them is received before it is asked for.
            make, behaviour = grpc.stream_unary_rpc_method_handler, _receiving(behaviour, turn)
        name = method.lstrip("/")
        ours = not name.startswith(_STANDARD)
        wrapped: grpc.RpcMethodHandler[Any, Any] = make(
            self._bounded(name, behaviour, ours=ours),
            _forgiving(handler.request_deserializer, strictly=ours and not name.endswith(_OF_RUNNING_WORK)),
            handler.response_serializer,
        )
        return wrapped

    def _bounded(self, method: str, behaviour: Any, *, ours: bool) -> Behaviour:
        run: Behaviour = _writing(behaviour) if inspect.isasyncgenfunction(behaviour) else behaviour

        async def call(request: Any, context: Context) -> Any:
            call = Call(method, _request_id(context), context.peer(), quiet=not ours)
            begin(call)
            context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
            self._observer.started(call.name)
            code = grpc.StatusCode.CANCELLED
            try:
                self._admit(call, request, context, ours=ours)
                answer = await run(request, context)
                code = grpc.StatusCode.OK
                return answer
            except JobwireError as error:
                code = code_of(error)
                call.note(reason=error.reason, why=error.message)
                refused = status_of(error)
            except grpc.aio.AbortError:
                code = context.code()
                raise
            except grpc.aio.InternalError as error:
                # How a write fails under which the client left. Raised on as it is, gRPC would log it as an error.
                raise asyncio.CancelledError from error
            except Exception:
                code = grpc.StatusCode.INTERNAL
                log.exception("a call failed unexpectedly")
                refused = internal_status(call.request_id)
            finally:
                # Before the answer leaves: whoever has it finds its line in the log.
                self._finish(call, code)
            return await _abort(context, call, refused)

        return call

    def _admit(self, call: Call, request: Any, context: Context, *, ours: bool) -> None:
        if ours and self._name_of is not None:
            call.caller = self._name_of(_told(context, "authorization"))
            call.note(caller=call.caller)
        if ours and (refusal := self._refusal()) is not None:
            raise refusal
        _check_readable(call, request)

    def _finish(self, call: Call, code: grpc.StatusCode) -> None:
        seconds = call.seconds
        self._observer.finished(call.name, code.name, seconds)
        write = log.warning if code in _OUR_FAULT else log.debug if call.quiet else log.info
        write("call", code=code.name, duration_ms=round(seconds * 1_000, 1), peer=call.peer)


def _told(context: Context, name: str) -> str | None:
    """What the call's metadata says under a name, the first time."""
    for each, value in context.invocation_metadata() or ():
        if each == name and isinstance(value, str):
            return value
    return None


def _request_id(context: Context) -> str:
    told = _told(context, REQUEST_ID)
    return told if told is not None and _ACCEPTED_ID.fullmatch(told) else str(uuid_utils.uuid4())


async def _abort(context: Context, call: Call, status: Status) -> NoReturn:
    packed = rpc_status.to_status(status)
    try:
        await context.abort(packed.code, packed.details, (*packed.trailing_metadata, (REQUEST_ID, call.request_id)))
    except grpc.aio.InternalError as error:
        raise asyncio.CancelledError from error


def _parts(handler: grpc.RpcMethodHandler[Any, Any]) -> tuple[Any, Any]:
    """What makes a handler of this one's kind, and its behaviour."""
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler, handler.unary_unary
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    return grpc.stream_stream_rpc_method_handler, handler.stream_stream


def _forgiving(deserialize: Any, *, strictly: bool) -> Callable[[bytes], Any]:
    """Reads a request without raising: gRPC would answer UNKNOWN with the exception's text."""

    def read(message: bytes) -> Any:
        try:
            request = deserialize(message)
            if strictly:
                refuse_unknown_fields(request)
        except DecodeError:
            return _Unreadable()
        except UnknownField as error:
            return _Unreadable(error)
        return request

    return read


def _check_readable(call: Call, request: Any) -> None:
    if isinstance(request, _Unreadable):
        rule = f"is no message that {call.name} takes: compare it with the proto files"
        raise request.error or broken("request", rule)


def _receiving(behaviour: Behaviour, turn: Turn) -> Behaviour:
    """A handler that receives its request by itself, and does not hold it for longer than `behaviour` does."""

    async def received(context: Context) -> Any:
        async with turn():
            request = await context.read()
        _check_readable(this_call(), _Unreadable() if request is grpc.aio.EOF else request)
        return request

    async def receive(_: Any, context: Context) -> Any:
        return await behaviour(await received(context), context)

    return receive


def _writing(behaviour: Any) -> Behaviour:
    """A handler that yields, as one that writes: if the client leaves, a generator would be closed in another task."""

    async def write_all(request: Any, context: Context) -> None:
        async with contextlib.aclosing(behaviour(request, context)) as messages:
            async for message in messages:
                await context.write(message)

    return write_all
