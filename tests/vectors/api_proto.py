"""Recipe of api_proto.txt: messages packed by Debian's python3-protobuf from the published .proto files, one `name hex` per line.

protoc -Iproto --include_imports --descriptor_set_out=api.bin conclave/v1/inference.proto conclave/v1/admin.proto
/usr/bin/python3 tests/vectors/api_proto.py api.bin > tests/vectors/api_proto.txt
"""
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

pool = descriptor_pool.DescriptorPool()
for file in descriptor_pb2.FileDescriptorSet.FromString(open(sys.argv[1], "rb").read()).file:
    pool.Add(file)
factory = message_factory.MessageFactory(pool)


def M(kind, **fields):
    return factory.GetPrototype(pool.FindMessageTypeByName("conclave.v1." + kind))(**fields)


zeros = dict(max_tokens=0, min_tokens=0, temperature=0, top_k=0, top_p=0, min_p=0, repetition_penalty=0, frequency_penalty=0,
             presence_penalty=0, seed=0, ignore_eos=False, n=0, logprobs=0)
ones = dict(max_tokens=1, min_tokens=300, temperature=0.5, top_k=70000, top_p=0.25, min_p=0.125, repetition_penalty=1.5,
            frequency_penalty=-2, presence_penalty=2, seed=2**64 - 1, ignore_eos=True, n=16, logprobs=50, stop=["a", "bc"],
            stop_token_ids=[1, 2, 300])
messages = [
    ("sampling_unset", M("Sampling")),
    ("sampling_zero", M("Sampling", **zeros)),
    ("sampling_set", M("Sampling", **ones)),
    ("generate_unset", M("GenerateRequest")),
    ("generate_zero", M("GenerateRequest", text="", request_id="", echo=False, progress=False, resume_from=M("TokenIds"), add_special_tokens=False)),
    ("generate_set", M("GenerateRequest", text="hello", request_id="id", echo=True, progress=True, resume_from=M("TokenIds", ids=[5, -1]),
                       add_special_tokens=True, set=M("ExpertSet", id="x", include=["p"], exclude=["q"]), sampling=M("Sampling", n=1))),
    ("response_zero", M("GenerateResponse", stop_match="", stop_token_id=0, request_id="", seed=0, set_id="", model_fingerprint="")),
    ("response_set", M("GenerateResponse", index=1, first_index=2, token_ids=[3, 4], text="t", finish_reason=2, stop_match="s", stop_token_id=-7,
                       request_id="r", seed=9, set_id="i", model_fingerprint="f", usage=M("Usage", prompt_tokens=1))),
    ("scored_unset", M("ScoredToken", id=7)),
    ("scored_zero", M("ScoredToken", id=7, logprob=0)),
    ("scored_set", M("ScoredToken", id=7, logprob=-1.5)),
    ("list_zero", M("ListExpertsRequest", layer=0, set_id="")),
    ("list_set", M("ListExpertsRequest", layer=3, set_id="s")),
]
for name, m in messages:
    print(name, m.SerializeToString(deterministic=True).hex())
