"""Small tokenizers with the pipelines of published MoE checkpoints, trained by the `tokenizers` package on a few kilobytes of text.

build() gives {name: Tokenizer}. The names say whose construction it is; `old` files are as they were published, `new` ones as newer
libraries save them again. What is left are single stages that published files combine."""
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from make_tokenizer import MARK, sample_text

SHORT_FORMS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
def cased(ending, without=""):
    """Words of which small letters end a run of capitals; without: taken out of both classes."""
    upper, lower = UPPER[:-1] + without + "]", LOWER[:-1] + without + "]"
    head = r"[^\r\n\p{L}\p{N}]?"
    return f"{head}{upper}*{lower}+{ending}|{head}{upper}+{lower}*{ending}"


QWEN = SHORT_FORMS + "|" + WORDS + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
QWEN_NEXT = SHORT_FORMS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACES
LLAMA3 = SHORT_FORMS + "|" + WORDS + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
O200K = cased(SHORT_FORMS + "?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES
TEKKEN = cased("") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES
BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
TIKTOKEN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
KIMI = r"[\p{Han}]+|" + cased(SHORT_FORMS + "?", r"&&[^\p{Han}]") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
DEEPSEEK2 = ["[\r\n]", "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0370-\u0373\u0388-\u03ff\u0400-\u0481"
             "\u048a-\u052f\u1e00-\u1f15\uff21-\uff3a\uff41-\uff5a]+",
             "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"]
DEEPSEEK3 = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
             r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|""" + SPACES]


def train(tokenizer, vocab_size, byte_level, specials, **options):
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else [MARK]
    special_tokens = [token if isinstance(token, AddedToken) else AddedToken(token, special=True, normalized=False) for token in specials]
    lines = [line + "\n" for line in sample_text().splitlines()]
    tokenizer.train_from_iterator(lines * 2, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special_tokens, initial_alphabet=alphabet, show_progress=False, **options))
    return tokenizer


def byte_level(*stages, normalizer=None, post=None, use_regex=False, prefix=False, spaces=True, added=(), **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*stages, last]) if stages else last
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train(tokenizer, 700, True, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    # Not where a normalizer changes it: what it makes nothing of the package finds everywhere, and from 0.23 on it decodes what is left.
    runs = [AddedToken("  \t", normalized=True)] if spaces else []
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False), *runs, *added])
    if post is not None:
        tokenizer.post_processor = post(tokenizer)
    return tokenizer


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def template(tokenizer):
    end = tokenizer.token_to_id("<|endoftext|>")
    return processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B", special_tokens=[("<|endoftext|>", end)])])


def add_byte_pieces(tokenizer):
    """Trained vocabularies have no <0x00> .. <0xFF>; byte_fallback wants them."""
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    data["model"].update(byte_fallback=True, fuse_unk=True)
    return Tokenizer.from_str(json.dumps(data))


def llama(normalizer, pre, decoder=None, added=()):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")  # for training alone
    train(tokenizer, 600, False, ["<unk>", "<s>", "</s>"])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = json.loads(pre.__getstate__()) if pre is not None else None
    tokenizer = add_byte_pieces(Tokenizer.from_str(json.dumps(data)))
    tokenizer.decoder = decoder or decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(),
                                                     decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B",
                                                             special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    tokenizer.add_tokens(list(added))
    return tokenizer


def old_llama_normalizer():
    return normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])


def published():
    ends = [AddedToken(f"<|place{i}|>", rstrip=True, normalized=False, special=True) for i in range(2)]
    yield "olmoe", byte_level(use_regex=True, normalizer=normalizers.NFC())
    yield "qwen3", byte_level(split(QWEN), normalizer=normalizers.NFC())
    yield "qwen3-next", byte_level(split(QWEN_NEXT), normalizer=normalizers.NFC())
    yield "llama3", byte_level(split(LLAMA3), post=template, ignore_merges=True)
    yield "dbrx", byte_level(split(LLAMA3), normalizer=normalizers.NFC(), post=template)
    yield "gpt-oss", byte_level(split(O200K), ignore_merges=True, post=template)
    yield "tekken", byte_level(split(TEKKEN), ignore_merges=True)
    yield "bailing", byte_level(split(BAILING), normalizer=normalizers.NFC())
    yield "tiktoken", byte_level(split(TIKTOKEN, "removed", True), added=ends)
    yield "kimi", byte_level(split(KIMI))
    yield "deepseek2", byte_level(*map(split, DEEPSEEK2), pre_tokenizers.Digits(individual_digits=True))
    yield "deepseek3", byte_level(*map(split, DEEPSEEK3))
    yield "granite", byte_level(pre_tokenizers.Digits(individual_digits=True), use_regex=True)
    yield "mixtral-old", llama(old_llama_normalizer(), None)
    yield "mixtral-new", llama(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    yield "mixtral-sequence", llama(None, pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="first")]),
                                    decoders.Sequence([decoders.Metaspace(prepend_scheme="first")]))
    yield "phi-moe", llama(old_llama_normalizer(), None, added=ends)
    yield "gemma", llama(normalizers.Replace(" ", MARK), pre_tokenizers.Split(" ", "merged_with_previous"),
                         decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]))


def falcon():
    stages = [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
              pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(stages)
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, 700, True, ["<|endoftext|>"])


def stages():
    yield "falcon", falcon()
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        yield "split-" + behavior, byte_level(split(r"\p{P}|\s+|a", behavior))
        yield "split-inverted-" + behavior, byte_level(split(r"[\p{L}\p{M}]+'?|\d", behavior, True), prefix=True)
        yield "split-text-" + behavior, byte_level(pre_tokenizers.Split("e", behavior))
    for name, normalizer in {
            "nfd": normalizers.NFD(), "nfkc": normalizers.NFKC(), "nfkd": normalizers.NFKD(),
            "lowercase": normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]),
            "accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()]),
            "strip-left": normalizers.Strip(left=True, right=False),
            "replace": normalizers.Sequence([normalizers.Replace(Regex(r"\s{2,}|(?<=\d)[.,](?=\d)"), " _ "), normalizers.Replace("the", "")])
    }.items():
        yield "normalizer-" + name, byte_level(split(QWEN), normalizer=normalizer, spaces=name not in ("accents", "strip-left", "replace"))
    for name, stage in {"whitespace": pre_tokenizers.Whitespace(), "whitespace-split": pre_tokenizers.WhitespaceSplit(),
                        "delimiter": pre_tokenizers.CharDelimiterSplit("e"), "digits": pre_tokenizers.Digits(False),
                        "punctuation": pre_tokenizers.Punctuation("merged_with_next")}.items():
        yield "stage-" + name, byte_level(stage)
    for scheme in ("always", "never", "first"):
        yield "metaspace-" + scheme, llama(None, pre_tokenizers.Metaspace(prepend_scheme=scheme), decoders.Metaspace(prepend_scheme=scheme))
    mapped = byte_level(split(LLAMA3))
    mapped.normalizer, mapped.pre_tokenizer = normalizers.ByteLevel(), split("[^\u0120]+|\u0120[^\u0120]*")
    yield "normalizer-bytes", mapped


def build():
    return dict([*published(), *stages()])
