"""What transformers' tokenizer classes make of a vocabulary: how each changes, cuts, joins and frames a text.

From version 5 on transformers takes from `tokenizer.json` no more than vocabulary and merges where a class of its own is
named, by `tokenizer_class` or by the model's type: normalizer, pre-tokenizer and decoder are the class's, by the settings in
`tokenizer_config.json`. A model was not always trained so, but it is what its other users see, and here the ids are the
same. Where no such class is named, `tokenizer.json` says it all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

from lucidlm.tokenize.added_tokens import content

Settings = Mapping[str, Any]
"""What `tokenizer_config.json` says."""


def word_pieces(digits: str, letters: str = r"\p{L}", others: str = r"\p{L}\p{N}") -> str:
    """Return the pattern of tiktoken's cl100k and its kin, which differ in how many digits stand together."""
    return (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}| ?[^\s{others}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


@dataclass(frozen=True)
class TokenizerClass:
    """A tokenizer class of transformers.

    Parameters
    ----------
    model: "BPE", "WordPiece" or "Unigram"; a `tokenizer.json` with another is not the class's.
    fields: what the model is told beside its vocabulary.
    dress: gives the tokenizer its normalizer, pre-tokenizer and decoder.
    frame: returns what is put before and after a text; None: what `tokenizer.json` says, or add_bos_token and add_eos_token.
    defaults: what holds where the settings do not say; control tokens above all.
    insists: whether the tokens that the settings call special are plain special ones, whatever else is said of them.
    """

    model: str
    dress: Callable[[tokenizers.Tokenizer, Settings], None]
    defaults: Mapping[str, Any]
    fields: Mapping[str, Any] = field(default_factory=dict)
    frame: Callable[[tokenizers.Tokenizer, Settings], processors.PostProcessor] | None = None
    insists: bool = False

    def build(
        self, vocabulary: Any, merges: Any, settings: Settings, normalizer: normalizers.Normalizer | None
    ) -> tokenizers.Tokenizer:
        """Return the class's tokenizer over a vocabulary; it has no added tokens yet, and frames no text.

        Parameters
        ----------
        normalizer: that of `tokenizer.json`; what SentencePiece has compiled into one is kept.
        """
        model: dict[str, Any] = {"type": self.model, "vocab": vocabulary}
        if self.model == "WordPiece":
            unknown = content(settings.get("unk_token")) or self.defaults["unk_token"]
            model |= {"unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
        if self.model == "BPE":
            model |= {"merges": merges, "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False}
            model |= {"continuing_subword_prefix": None, "end_of_word_suffix": None, "ignore_merges": False}
        model |= self.fields
        parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
        state = {"version": "1.0", "added_tokens": [], "model": model, **dict.fromkeys(parts)}
        core = tokenizers.Tokenizer.from_str(json.dumps(state))
        if self.model == "Unigram":
            core.normalizer = _compiled(normalizer)
        self.dress(core, settings)
        return core


def _compiled(normalizer: normalizers.Normalizer | None) -> normalizers.Normalizer | None:
    steps = [normalizer]
    if isinstance(normalizer, normalizers.Sequence):
        steps = [normalizer[number] for number in range(len(normalizer))]
    return next((step for step in steps if isinstance(step, normalizers.Precompiled)), None)


def _bert(core: tokenizers.Tokenizer, settings: Settings) -> None:
    """BERT's (Wu et al. 2016, arXiv:1609.08144, section 4.1)."""
    core.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")


def _gpt2(core: tokenizers.Tokenizer, settings: Settings) -> None:
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space")))
    core.decoder = decoders.ByteLevel()


def _gpt_neox(core: tokenizers.Tokenizer, settings: Settings) -> None:
    _gpt2(core, settings)
    core.normalizer = normalizers.NFC()


def _cut_by(pattern: str, *, composed: bool) -> Callable[[tokenizers.Tokenizer, Settings], None]:
    def dress(core: tokenizers.Tokenizer, settings: Settings) -> None:
        if composed:
            core.normalizer = normalizers.NFC()
        prefixed = bool(settings.get("add_prefix_space"))
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(prefixed, use_regex=False)]
        )
        core.decoder = decoders.ByteLevel()

    return dress


def _llama(core: tokenizers.Tokenizer, settings: Settings) -> None:
    """SentencePiece's BPE (Kudo and Richardson 2018, arXiv:1808.06226) with bytes for unknown characters."""
    prefixed = settings.get("add_prefix_space")
    prefixed = True if prefixed is None else bool(prefixed)
    scheme = ("always" if settings.get("legacy", False) else "first") if prefixed else "never"
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    stripped = [decoders.Strip(" ", 1, 0)] if prefixed else []
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *stripped])


def _gemma(core: tokenizers.Tokenizer, settings: Settings) -> None:
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _xlm_roberta(core: tokenizers.Tokenizer, settings: Settings) -> None:
    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)]
    )
    core.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme)


def _between(before: str, after: str) -> Callable[[tokenizers.Tokenizer, Settings], processors.PostProcessor]:
    """Return the post-processor that adds the special tokens with these roles before and after a text."""

    def frame(core: tokenizers.Tokenizer, settings: Settings) -> processors.PostProcessor:
        first, last = (str(content(settings[role])) for role in (before, after))
        special = {token: core.token_to_id(token) for token in (first, last)}
        return processors.TemplateProcessing(
            single=[first, "$A", last],
            pair=[f"{first}:0", "$A:0", f"{last}:0", "$B:1", f"{last}:1"],
            special_tokens=list(special.items()),
        )

    return frame


def _roberta_frame(core: tokenizers.Tokenizer, settings: Settings) -> processors.PostProcessor:
    last, first = (str(content(settings[role])) for role in ("sep_token", "cls_token"))
    ids = core.get_vocab()
    trims, prefixed = settings.get("trim_offsets", True), bool(settings.get("add_prefix_space"))
    return processors.RobertaProcessing((last, ids[last]), (first, ids[first]), trims, prefixed)


def _xlm_roberta_frame(core: tokenizers.Tokenizer, settings: Settings) -> processors.PostProcessor:
    first, last = (str(content(settings[role])) for role in ("bos_token", "eos_token"))
    special = {token: core.token_to_id(token) for token in (first, last)}
    return processors.TemplateProcessing(
        single=[first, "$A", last], pair=[first, "$A", last, last, "$B", last], special_tokens=list(special.items())
    )


def begin_and_end(core: tokenizers.Tokenizer, settings: Settings) -> processors.PostProcessor:
    """Return what puts bos_token and eos_token around a text where add_bos_token and add_eos_token say so."""
    named = {role: content(settings.get(f"{role}_token")) for role in ("bos", "eos")}
    first, last = ([token] if token and settings.get(f"add_{role}_token") else [] for role, token in named.items())
    special = {token: core.token_to_id(token) for token in (*first, *last)}
    return processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{token}:1" for token in first), "$B:1", *(f"{token}:1" for token in last)],
        special_tokens=list(special.items()),
    )


END = "<|endoftext|>"
BERT_ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
END_ROLES = {"unk_token": END, "bos_token": END, "eos_token": END}
QWEN_ROLES = {"unk_token": END, "eos_token": END, "pad_token": END}
LLAMA_ROLES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
SENTENCE_PIECE = {"fuse_unk": True, "byte_fallback": True}
NO_AFFIXES = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
GEMMA_ROLES = {
    "unk_token": "<unk>",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}

BERT = TokenizerClass("WordPiece", _bert, BERT_ROLES, frame=_between("cls_token", "sep_token"))
GPT2 = TokenizerClass("BPE", _gpt2, END_ROLES, NO_AFFIXES)
ROBERTA = TokenizerClass("BPE", _gpt2, ROBERTA_ROLES, NO_AFFIXES, _roberta_frame)

CLASSES = {
    "BertTokenizer": BERT,
    "DistilBertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "MobileBertTokenizer": BERT,
    "ConvBertTokenizer": BERT,
    "LayoutLMTokenizer": BERT,
    "SqueezeBertTokenizer": BERT,
    "GPT2Tokenizer": GPT2,
    "CodeGenTokenizer": GPT2,
    "GPTNeoXTokenizer": TokenizerClass(
        "BPE", _gpt_neox, {**END_ROLES, "pad_token": "<|padding|>"}, NO_AFFIXES, begin_and_end
    ),
    "Qwen2Tokenizer": TokenizerClass(
        "BPE", _cut_by(word_pieces(r"\p{N}"), composed=True), QWEN_ROLES, NO_AFFIXES, insists=True
    ),
    "Qwen3_5Tokenizer": TokenizerClass(
        "BPE",
        _cut_by(word_pieces(r"\p{N}", r"[\p{L}\p{M}]", r"\p{L}\p{M}\p{N}"), composed=True),
        QWEN_ROLES,
        NO_AFFIXES,
    ),
    "RobertaTokenizer": ROBERTA,
    "BartTokenizer": ROBERTA,
    "LongformerTokenizer": ROBERTA,
    "LEDTokenizer": ROBERTA,
    "LlamaTokenizer": TokenizerClass("BPE", _llama, LLAMA_ROLES, SENTENCE_PIECE),
    "GemmaTokenizer": TokenizerClass("BPE", _gemma, GEMMA_ROLES, {**SENTENCE_PIECE, "unk_token": "<unk>"}),
    "XLMRobertaTokenizer": TokenizerClass(
        "Unigram", _xlm_roberta, ROBERTA_ROLES, {"unk_id": 3, "byte_fallback": False}, _xlm_roberta_frame
    ),
}
"""By the names that transformers has for them, without the Fast that some end with."""

LLAMA3 = TokenizerClass(
    "BPE",
    _cut_by(word_pieces(r"\p{N}{1,3}"), composed=False),
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "add_bos_token": True},
    {**NO_AFFIXES, "ignore_merges": True},
)
"""Llama 3's, for which transformers has no class (Dubey et al. 2024, arXiv:2407.21783): it needs tokenizer.json there."""

OF_MODELS = {
    model_type: name
    for name, types in {
        "BertTokenizer": "bert distilbert electra mobilebert convbert layoutlm squeezebert megatron-bert ernie nomic_bert",
        "GPT2Tokenizer": "gpt2 gpt_neo gptj opt phi codegen starcoder2 dbrx jais2",
        "GPTNeoXTokenizer": "gpt_neox olmo olmoe mpt mamba mamba2 falcon_mamba rwkv xlstm",
        "Qwen2Tokenizer": "qwen2 qwen2_moe qwen2_vl qwen2_5_vl qwen3 qwen3_moe qwen3_next qwen3_vl",
        "Qwen3_5Tokenizer": "qwen3_5 qwen3_5_text qwen3_5_moe",
        "RobertaTokenizer": "roberta bart longformer data2vec-text ibert roberta-prelayernorm",
        "GemmaTokenizer": "gemma gemma2 gemma3 gemma3_text",
        "XLMRobertaTokenizer": "xlm-roberta xmod gte",
    }.items()
    for model_type in types.split()
}
"""The classes of the models' types, where the settings name none."""

SET_BY_TYPE = frozenset({"qwen2", "qwen3_5", "qwen3_5_moe"})
"""Types of models whose class holds whatever the settings name, for many of these name a wrong one."""

AS_THEY_ARE = frozenset(
    (
        *("mistral", "mistral3", "mixtral", "ministral", "ministral3", "phi3", "phimoe", "modernbert"),
        *("modernbert-decoder", "granite", "granitemoe", "olmo2", "olmo3", "stablelm", "glm", "glm4", "gpt_bigcode"),
        *("nemotron", "internlm2", "internlm3", "minicpm3", "jamba", "ernie4_5", "persimmon"),
    )
)
"""Types of models whose `tokenizer.json` is taken as it is, whatever class the settings name."""


def class_name(declared: str | None, model_type: str | None, byte_level: bool) -> str | None:
    """Return the name of the class that transformers would take, None where `tokenizer.json` is taken as it is.

    Parameters
    ----------
    declared: the tokenizer_class of the settings, or of `config.json`.
    byte_level: whether `tokenizer.json` is byte-level, which Llama's class is not.
    """
    declared = declared.removesuffix("Fast") if declared else None
    of_model = OF_MODELS.get(model_type or "")
    if declared == "LlamaTokenizer" and byte_level and model_type not in SET_BY_TYPE:
        return None
    if model_type in AS_THEY_ARE:
        return None
    if model_type in SET_BY_TYPE or declared is None:
        return of_model
    return None if declared in ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend") else declared
