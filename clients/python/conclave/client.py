"""One connection to a coordinator. A client may be used from several threads."""
from __future__ import annotations

import time
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple, Union

import grpc

from .v1 import admin_pb2, inference_pb2

# A text; token ids; or a conversation of (role, content), the role being "system", "user" or "assistant".
Prompt = Union[str, Sequence[int], Sequence[Tuple[str, str]]]

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


def read_token(path: str) -> str:
    """The first line of a token file that is neither empty nor a comment."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.lstrip().startswith("#"):
                return line.strip()
    raise ValueError(f"{path}: no token in it")


def _is_conversation(prompt: Sequence[Any]) -> bool:
    return len(prompt) > 0 and not isinstance(prompt[0], int)


def _set_prompt(request: Any, prompt: Prompt) -> None:
    if isinstance(prompt, str):
        request.text = prompt
    elif _is_conversation(prompt):
        for role, content in prompt:  # type: ignore[misc]
            request.messages.messages.add(role=f"ROLE_{role.upper()}", content=content)
    else:
        request.token_ids.SetInParent()
        request.token_ids.ids.extend(prompt)  # type: ignore[arg-type]


def _choose_set(request: Any, expert_set: Union[str, inference_pb2.ExpertSet, None]) -> None:
    if isinstance(expert_set, str):
        request.set.id = expert_set
    elif expert_set is not None:
        request.set.CopyFrom(expert_set)


def _pause_s(error: grpc.RpcError, attempt: int) -> float:
    """What the server asks for, else longer each time."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-retry-pushback-ms" and str(value).isdigit():
            return int(value) / 1000
    return min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S)


class Client:
    """Connects at the first call.

    server:      HOST:PORT
    credentials: of grpc.ssl_channel_credentials(); None: plain text
    token:       the bearer token, where the server wants one
    timeout:     seconds for each call that is no stream; None: no limit
    retries:     how often a stream that broke off is taken up again; 0: never
    """

    def __init__(self, server: str = "127.0.0.1:50051", *, credentials: Optional[grpc.ChannelCredentials] = None,
                 token: Optional[str] = None, timeout: Optional[float] = None, retries: int = 5) -> None:
        # gRPC's own retries are off: in 1.51 a call that meets a server's end may then wait for good, past its deadline.
        options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        self._channel = grpc.secure_channel(server, credentials, options) if credentials else grpc.insecure_channel(server, options)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else None
        self._timeout = timeout
        self._retries = retries

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def _method(self, make: Callable[..., Any], service: str, name: str, reply: Any) -> Any:
        return make(f"/conclave.v1.{service}/{name}", request_serializer=lambda request: request.SerializeToString(),
                    response_deserializer=reply.FromString)

    def _call(self, service: str, name: str, request: Any, reply: Any) -> Any:
        call = self._method(self._channel.unary_unary, service, name, reply)
        return call(request, timeout=self._timeout, metadata=self._metadata)

    # ------------------------------------------------------------------------------------------------ streams
    def stream(self, request: inference_pb2.GenerateRequest) -> Iterator[inference_pb2.GenerateResponse]:
        """The chunks of one answer. When the server goes away in the middle the stream goes on with the next one that can be
        reached: the tokens that have come and the seed are all that it needs, and what it adds is bit for bit what the first one
        would have added. Only UNAVAILABLE is tried again, and requests with n > 1 only before their first token."""
        ask = inference_pb2.GenerateRequest()
        ask.CopyFrom(request)
        call = self._method(self._channel.unary_stream, "Inference", "Generate", inference_pb2.GenerateResponse)
        tokens: List[int] = list(request.resume_from.ids)
        n_came, attempt, set_id = 0, 0, ""
        while True:
            try:
                for chunk in call(ask, metadata=self._metadata):
                    set_id = chunk.set_id or set_id
                    if chunk.HasField("seed"):
                        ask.sampling.seed = chunk.seed
                    if not chunk.echo:
                        tokens += chunk.token_ids
                        n_came += len(chunk.token_ids)
                    if chunk.echo:
                        ask.ClearField("echo")
                    yield chunk
                return
            except grpc.RpcError as error:
                can_go_on = n_came == 0 or request.sampling.n <= 1
                if error.code() != grpc.StatusCode.UNAVAILABLE or attempt == self._retries or not can_go_on:
                    raise
                time.sleep(_pause_s(error, attempt))
                attempt += 1
                if set_id:  # the default set may be another one by now
                    ask.set.CopyFrom(inference_pb2.ExpertSet(id=set_id))
                if tokens:
                    ask.resume_from.ids[:] = tokens

    def generate(self, prompt: Prompt, *, echo: bool = False, expert_set: Union[str, inference_pb2.ExpertSet, None] = None,
                 **sampling: Any) -> Iterator[inference_pb2.GenerateResponse]:
        """Streams an answer; sampling: the fields of Sampling, as max_tokens=40, temperature=0, stop=["\\n"]. expert_set: a name or
        an id, or an ExpertSet of packs that are put in or left out; None: the server's default."""
        request = inference_pb2.GenerateRequest(echo=echo or None, sampling=inference_pb2.Sampling(**sampling))
        _set_prompt(request, prompt)
        _choose_set(request, expert_set)
        return self.stream(request)

    def complete(self, prompt: Prompt, **sampling: Any) -> str:
        """The text of one answer."""
        return "".join(chunk.text for chunk in self.generate(prompt, **sampling) if chunk.index == 0)

    # ------------------------------------------------------------------------------------------------ other calls
    def score(self, prompt: Prompt, *, top: int = 0, experts: bool = False,
              expert_set: Union[str, inference_pb2.ExpertSet, None] = None) -> inference_pb2.ScoreResponse:
        """The log-probability of every token of a text or of token ids, given those before it; top: the best N at each place;
        expert_set: as generate's."""
        request = inference_pb2.ScoreRequest(top=top or None, experts=experts or None)
        _set_prompt(request, prompt)
        _choose_set(request, expert_set)
        return self._call("Inference", "Score", request, inference_pb2.ScoreResponse)

    def tokenize(self, text: str, *, add_special_tokens: Optional[bool] = None) -> List[int]:
        """The ids of a text; by default with the special tokens that the tokenizer adds."""
        request = inference_pb2.TokenizeRequest(text=text, add_special_tokens=add_special_tokens)
        return list(self._call("Inference", "Tokenize", request, inference_pb2.TokenizeResponse).ids)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self._call("Inference", "Detokenize", inference_pb2.DetokenizeRequest(ids=ids), inference_pb2.DetokenizeResponse).text

    def model(self) -> inference_pb2.GetModelResponse:
        """What is served, and its limits."""
        return self._call("Inference", "GetModel", inference_pb2.GetModelRequest(), inference_pb2.GetModelResponse)

    def cluster(self) -> admin_pb2.GetClusterResponse:
        """The members of the cluster."""
        return self._call("Admin", "GetCluster", admin_pb2.GetClusterRequest(), admin_pb2.GetClusterResponse)
