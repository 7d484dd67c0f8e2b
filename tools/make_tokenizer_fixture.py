#!/usr/bin/env python3
"""Makes the fixtures of the tokenizer tests with the `tokenizers` package.

Writes into --output (tests/data/tokenizer):
  strings.json            the texts that every tokenizer encodes
  <family>.json           a small tokenizer.json per family, trained here or cut from SmolLM2's
  <name>_expected.json    what `tokenizers` makes of the texts with it

SmolLM2's vocabulary comes from a GGUF file (--gguf); its full tokenizer is too large to commit, so
smollm2_full_expected.json has the ids only and is used where the model has been imported.

Needs the Python packages gguf and tokenizers. Their trainer breaks ties differently in each run, so
the trained tokenizers, and what is expected of them, change with every run. Tests read what is
committed; run this only to change the fixtures. The version of `tokenizers` is written into every
file.
"""
import argparse
import copy
import json
import random
from pathlib import Path

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")

SENTENCES = """
The cat sat on the warm stone wall and watched the rain move over the hills.
She said that the answer isn't simple, but we'll find it; I'm sure they've tried.
Der Fluss fließt langsam durch die alte Stadt, und über die Brücke fährt der Bus.
Le garçon a mangé une pomme près de la fenêtre où dormait un chat noir.
El niño pequeño corrió hacia la montaña mientras su madre leía un libro.
Amanhã não haverá aula, então vamos à praia com os irmãos do João.
La città è più bella quando piove e le luci brillano sull'acqua.
Zażółć gęślą jaźń, a potem zjedz śniadanie w ogrodzie.
Příliš žluťoučký kůň běžel přes louku k řece.
Az árvíztűrő tükörfúrógép zúgva állt a műhely sarkában.
Güneş doğarken İstanbul'da ışıklar sönüyor ve kuşlar uçuyor.
Tôi muốn uống một cốc nước lạnh trước khi trời tối.
Волк бежит по снегу, а луна освещает тёмный лес и реку.
Їжак під’їхав до ґанку й з’їв яблуко.
Η θάλασσα είναι ήρεμη σήμερα και ο ήλιος λάμπει πάνω από το νησί.
השמש זורחת מעל העיר והילדים משחקים ברחוב. שָׁלוֹם
الولد يقرأ كتاباً تحت الشجرة والطيور تغني فوقه. مُحَمَّد
پرنده‌ها در آسمان آبی پرواز می‌کنند و باد آرام است.
لڑکا دریا کے کنارے بیٹھا ہے اور گیت گا رہا ہے۔
लड़का नदी के किनारे बैठकर किताब पढ़ रहा है। क्षत्रिय ज़रूर
ছেলেটি নদীর ধারে বসে বই পড়ছে এবং আকাশ দেখছে।
சிறுவன் ஆற்றின் கரையில் அமர்ந்து புத்தகம் படிக்கிறான்.
అబ్బాయి నది ఒడ్డున కూర్చుని పుస్తకం చదువుతున్నాడు.
ಹುಡುಗ ನದಿಯ ದಡದಲ್ಲಿ ಕುಳಿತು ಪುಸ್ತಕ ಓದುತ್ತಿದ್ದಾನೆ.
കുട്ടി പുഴയുടെ തീരത്ത് ഇരുന്ന് പുസ്തകം വായിക്കുന്നു.
ਮੁੰਡਾ ਦਰਿਆ ਦੇ ਕੰਢੇ ਬੈਠਾ ਕਿਤਾਬ ਪੜ੍ਹ ਰਿਹਾ ਹੈ।
છોકરો નદી કિનારે બેસીને પુસ્તક વાંચે છે.
ළමයා ගඟ අසල වාඩි වී පොතක් කියවයි.
เด็กผู้ชายนั่งอ่านหนังสืออยู่ริมแม่น้ำในตอนเย็น
ເດັກຊາຍນັ່ງອ່ານປຶ້ມຢູ່ແຄມແມ່ນ້ຳ
ကလေးသည် မြစ်ကမ်းတွင် ထိုင်၍ စာဖတ်နေသည်။
ក្មេងប្រុសអង្គុយអានសៀវភៅនៅមាត់ទន្លេ។
བུ་ཆུང་གཙང་པོའི་འགྲམ་དུ་དེབ་ཀློག་བཞིན་འདུག
男孩坐在河边看书，月亮慢慢升起来了。今天是二〇二五年三月五日。
男孩坐在河邊看書，月亮慢慢升起來了。「你好嗎？」她問。
男の子は川のそばで本を読んでいます。カタカナもひらがなも使うよ！ｶﾀｶﾅ ガギグゲゴ
소년이 강가에 앉아 책을 읽고 있습니다. 달이 천천히 떠오릅니다.
ბიჭი მდინარის პირას ზის და წიგნს კითხულობს.
Տղան նստած է գետի ափին և գիրք է կարդում։
ልጁ በወንዙ ዳር ተቀምጦ መጽሐፍ ያነባል።
ᎠᏧᏣ ᎡᏉᏂ ᎾᎥᎢ ᎤᏬᎳ
Хүү голын эрэг дээр суугаад ном уншиж байна. ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ
𐌸𐌿 𐍃𐌹𐍄𐌹𐍃 𝓜𝓪𝓽𝓱 𝔊𝔬𝔱𝔥𝔦𝔠 ①②③ ⅣⅨ ½¾ x²+y³ ₁₂₃
""".strip().split("\n")

CODE = [
    "def f(x, *, y=1):\n    \"\"\"Doc.\"\"\"\n    return {k: v**2 for k, v in x.items() if v != y}\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];  // dot\n}\n",
    "#include <vector>\nstd::vector<std::pair<int, double>> v{{1, 2.5e-3}};\n",
    "SELECT name, COUNT(*) FROM t WHERE id >= 100 AND x LIKE '%a_b%' GROUP BY 1;",
    "<div class=\"row\" id='x1'><a href=\"https://example.org/?q=1&r=%20#top\">go</a></div>",
    "{\"key\": [1, 2.0, -3e+7, null, true], \"nested\": {\"a\\n\": \"\\u00e9\"}}",
    "$ grep -rn 'TODO' --include=*.py . | sort -k2,2 -t: | head -20",
    "fn main() { let x: &'static str = r#\"raw\"#; println!(\"{x:?}\"); }",
    "if (a && !b || c->d[0] == '\\'') { return ~x ^ 0xFF; }",
    "\\begin{equation} \\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2} \\end{equation}",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n```sh\nls -la\n```\n",
    "x = lambda s: re.sub(r\"(?<=\\w)'s\\b\", \"\", s)  # can't, won't, I'LL\n",
    "    \t    mixed indentation\n\t\t\tdeep\n        eight\n",
    "C:\\Users\\name\\file.txt /usr/local/lib/libfoo.so.1.2.3 user@host.example.com",
    "https://example.com/a/b_c-d.html?x=10&y=2024-01-31T12:34:56Z",
]

EMOJI = ("😀 😂 🥰 👍 👍🏽 👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🏴‍☠️ 🇩🇪 🇯🇵🇫🇷 1️⃣ #️⃣ ❤️ ☕ ✨ 🤷🏿‍♀️ 🧑🏻‍🤝‍🧑🏾 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ☺ ☺︎ ☺️ 🫠 🪿 ⌚️ ©️ ™ → ∑ √ ♫ █ ░").split(" ")

SPACES = [" ", " ", " ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2009", "\u2028", "\u2029",
          "\u0085", "\u180e", "\u200b", "\x0b", "\x0c", "\x1c", "\x1f", "\u202f", "\u1680", "\ufeff"]

MARKS = ["\u0300", "\u0301", "\u0308", "\u0323", "\u0327", "\u0328", "\u031b", "\u0345", "\u0338",
         "\u05b0", "\u05bc", "\u05c1", "\u064b", "\u0651", "\u0653", "\u093c", "\u094d", "\u09be",
         "\u0b3e", "\u0bbe", "\u0cd5", "\u0dcf", "\u1161", "\u11a8", "\u11af", "\u3099", "\u309a",
         "\u20d7", "\ufe0f", "\u200d", "\u1dc4"]

BASES = list("aeiouAEIOUcnsyzæøΑωуиĳ") + [
    "\u1100", "\u1112", "\uac00", "\ud7a3", "か", "ハ", "क", "ড", "ଡ", "ெ", "ו", "ש", "ا", "\u212b",
    "\u2126", "\u0344", "\u0958", "\ufb1d", "\uf900", "\u1e9b", "\u0f43", "\u0fb5", "ệ", "\u01d5"]

DIGITS = list("0123456789") + ["٣", "۷", "५", "৯", "๔", "０", "９", "²", "½", "Ⅷ", "〇", "𝟘", "𝟡", "①",
                               "\U000116d0", "\U0001d2c0", "\U00011de0"]

CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL",
                "'D", "'\u017f", "\u2019s", "'x", "''s", "' s", "'", "'r", "'l", "'v"]

ODD = ["\x00", "\x01", "\x7f", "\u0080", "\u00ad", "\ufffd", "\ufffe", "\uffff", "\ufeff", "\ue000",
       "\U0010ffff", "\U000e0001", "\u2060", "\u200f", "\u202e", "\ud7ff", "\U0001f9ff", "\u0378",
       "\U00031350", "\U0002ebf0", "\U000105c0", "\u1c89", "Ġ", "Ċ", "ġ", "▁", "▁▁", "<0x0A>",
       "Ġthe", "âĢ"]


def make_strings():
    """At least 2,000 different texts, the same on every run."""
    rng = random.Random(20250101)
    words = sorted({w for s in SENTENCES + CODE for w in s.split()})
    texts = [""] + SENTENCES + CODE + EMOJI + SPACES + MARKS + BASES + DIGITS + CONTRACTIONS + ODD
    texts += [c for c in map(chr, range(128))]
    texts += ["".join(EMOJI[i:i + 3]) for i in range(len(EMOJI))]
    texts += ["é e\u0301 ﬁ ẛ̣ Å Å A\u030a", "\u1112\u1161\u11ab 한 가\u11a8", "q\u0307\u0323 q\u0323\u0307",
              "a\u0315\u0300\u05ae\u0300\u0062", "1" * 50, "a" * 300, " " * 200, "\n" * 60, "😀" * 20,
              "ab" * 100, "\u0301" * 20, "\r\n" * 10 + "x", "x" + " " * 20 + "y", "   leading", "trailing   ",
              " \n \n ", "\t\n\t ", "a\n\n\nb", "a \n b", "a\u00a0\u00a0b", "▁a b ▁", "a▁b  ▁▁c"]

    def pick(options, least, most):
        return "".join(rng.choice(options) for _ in range(rng.randint(least, most)))

    def word():
        return rng.choice(words)

    def any_character():
        plane = rng.choice([0x80, 0x250, 0x800, 0x3000, 0x10000, 0x20000, 0x110000])
        while True:
            c = rng.randrange(plane)
            if not 0xd800 <= c < 0xe000:
                return chr(c)

    kinds = [
        lambda: word() + pick(SPACES, 1, 8) + word() + pick(SPACES, 0, 5),
        lambda: pick(DIGITS, 1, 10) + rng.choice(["", ".", ",", " ", "-", "x"]) + pick(DIGITS, 1, 6),
        lambda: str(rng.randrange(10 ** rng.randint(1, 14))) + rng.choice([" ", "", "px", "%", "€"]),
        lambda: "".join(rng.choice(BASES) + pick(MARKS, 0, 4) for _ in range(rng.randint(1, 5))),
        lambda: word() + rng.choice(CONTRACTIONS) + rng.choice(["", " ", "x", "."]) + word(),
        lambda: pick(list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ") + ["\n", "a", "7"], 1, 16),
        lambda: "".join(any_character() for _ in range(rng.randint(1, 8))),
        lambda: pick(EMOJI, 1, 3) + rng.choice(["", " ", "\n"]) + word() + pick(EMOJI, 0, 2),
        lambda: pick(ODD, 1, 3) + word() + pick(ODD, 0, 2),
        lambda: " ".join(word() for _ in range(rng.randint(2, 9))),
        lambda: rng.choice(CODE)[rng.randrange(20):][:rng.randint(10, 60)],
        lambda: "\n".join(rng.choice(SENTENCES)[:rng.randint(5, 50)] for _ in range(2)),
        lambda: pick(SPACES, 1, 12),
        lambda: rng.choice(SENTENCES)[rng.randrange(12):][:rng.randint(1, 30)].upper(),
    ]
    seen = dict.fromkeys(texts)
    while len(seen) < 2500:
        seen[rng.choice(kinds)()] = None
    return list(seen)


def added(token_id, content, special=True, **options):
    entry = {"id": token_id, "content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": special}
    entry.update(options)
    return entry


def document(model, **parts):
    """A tokenizer.json with `parts` in place."""
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}}
    base["model"].update(model)
    base.update(parts)
    return base


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTE_LEVEL_ONLY = dict(BYTE_LEVEL, use_regex=False)


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def template(*names_ids):
    """Special tokens before the text."""
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": n, "type_id": 0}} for n, _ in names_ids]
            + [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in names_ids}}


def train(pre_tokenizer, corpus, size, alphabet, limit_alphabet=None):
    """A BPE trained on `corpus`; returns (vocabulary, list of merges as pairs)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    options = {} if limit_alphabet is None else {"limit_alphabet": limit_alphabet}
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False,
                                  **options)
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def read_gguf(path):
    """SmolLM2's tokenizer.json, from the tokens and merges of a GGUF file."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    special = [added(i, t) for i, (t, kind) in enumerate(zip(tokens, types)) if kind == 3]
    return document({"vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
                    added_tokens=special, decoder=BYTE_LEVEL,
                    pre_tokenizer={"type": "Sequence", "pretokenizers": [
                        {"type": "Digits", "individual_digits": True}, BYTE_LEVEL]})


def cut(full, size):
    """The same tokenizer with the first `size` tokens."""
    small = copy.deepcopy(full)
    vocab = {t: i for t, i in full["model"]["vocab"].items() if i < size}
    small["model"]["vocab"] = vocab
    small["model"]["merges"] = [
        m for m in full["model"]["merges"]
        if m.replace(" ", "") in vocab and all(part in vocab for part in m.split(" "))]
    small["added_tokens"] = [t for t in full["added_tokens"] if t["id"] < size]
    return small


def make_byte_level_families(corpus):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def trained(pattern, size):
        return train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                              byte_level]), corpus, size, alphabet)

    vocab, merges = trained(GPT2_SPLIT, 1500)
    end = len(vocab)
    gpt2 = document({"vocab": vocab, "merges": [" ".join(m) for m in merges], "unk_token": None},
                    added_tokens=[added(end, "<|endoftext|>", normalized=True)],
                    pre_tokenizer=dict(BYTE_LEVEL), decoder=BYTE_LEVEL, post_processor=BYTE_LEVEL)

    vocab, merges = trained(LLAMA3_SPLIT, 1500)
    for word in ["Ġmontaña", "éléphant", "Ġwatching", "xyzzy", "ĠðŁĺĢ"]:  # only ignore_merges reaches them
        vocab.setdefault(word, len(vocab))
    begin = len(vocab)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    llama3 = document({"vocab": vocab, "merges": merges, "ignore_merges": True},
                      added_tokens=[added(begin + i, n) for i, n in enumerate(names)],
                      pre_tokenizer={"type": "Sequence",
                                     "pretokenizers": [split(LLAMA3_SPLIT), BYTE_LEVEL_ONLY]},
                      decoder=BYTE_LEVEL,
                      post_processor={"type": "Sequence", "processors": [
                          BYTE_LEVEL, template((names[0], begin))]})

    vocab, merges = trained(QWEN2_SPLIT, 1500)
    begin = len(vocab)
    tokens = [added(begin, "<|endoftext|>"), added(begin + 1, "<|im_start|>"),
              added(begin + 2, "<|im_end|>"), added(begin + 3, "<tool_call>", special=False),
              added(begin + 4, "</tool_call>", special=False)]
    qwen2 = document({"vocab": vocab, "merges": [" ".join(m) for m in merges],
                      "continuing_subword_prefix": "", "end_of_word_suffix": ""},
                     added_tokens=tokens, normalizer={"type": "NFC"},
                     pre_tokenizer={"type": "Sequence",
                                    "pretokenizers": [split(QWEN2_SPLIT), BYTE_LEVEL_ONLY]},
                     decoder=BYTE_LEVEL, post_processor=BYTE_LEVEL_ONLY)
    return {"gpt2": gpt2, "llama3": llama3, "qwen2": qwen2}


def make_llama2(corpus):
    """SentencePiece's layout: <unk>, <s>, </s>, 256 bytes, then what was trained."""
    trained, merges = train(pre_tokenizers.Metaspace(prepend_scheme="always"), corpus, 1200, [],
                            limit_alphabet=150)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += sorted(trained, key=trained.get)
    vocab = {t: i for i, t in enumerate(tokens)}
    return document({"vocab": vocab, "merges": [" ".join(m) for m in merges], "unk_token": "<unk>",
                     "fuse_unk": True, "byte_fallback": True},
                    added_tokens=[added(i, tokens[i]) for i in range(3)],
                    normalizer={"type": "Sequence", "normalizers": [
                        {"type": "Prepend", "prepend": "▁"},
                        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
                    post_processor=template(("<s>", 1)),
                    decoder={"type": "Sequence", "decoders": [
                        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                        {"type": "ByteFallback"}, {"type": "Fuse"},
                        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})


def make_variants(families):
    """Tokenizers that differ from a family in a few keys: name -> (family, changed keys)."""
    end = max(families["qwen2"]["model"]["vocab"].values()) + 1
    llama2 = families["llama2"]
    no_bytes = {t: i for t, i in llama2["model"]["vocab"].items() if not t.startswith("<0x")}
    no_bytes = {t: i for i, t in enumerate(sorted(no_bytes, key=no_bytes.get))}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    options = [
        added(end, "<left>", lstrip=True), added(end + 1, "<right>", rstrip=True),
        added(end + 2, "<both>", lstrip=True, rstrip=True, special=False),
        added(end + 3, "word", single_word=True, special=False),
        added(end + 4, "e\u0301t", normalized=True, special=False), added(end + 5, "  ", special=False),
        added(end + 6, "<l"), added(end + 7, " <gap>", special=False),
        added(end + 8, "caf\u00e9", normalized=True, single_word=True, lstrip=True)]
    return {
        "llama2_metaspace": ("llama2", {"normalizer": None, "pre_tokenizer": metaspace}),
        "llama2_metaspace_split": ("llama2", {
            "normalizer": None,
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {
                "type": "Metaspace", "replacement": "▁", "add_prefix_space": True}]}}),
        "llama2_unknown": ("llama2", {
            "model": dict(llama2["model"], vocab=no_bytes, fuse_unk=False, byte_fallback=True)}),
        "llama2_unknown_fused": ("llama2", {
            "model": dict(llama2["model"], vocab=no_bytes, byte_fallback=False)}),
        # As first converted: the special tokens are sought in normalized text.
        "llama2_normalized_special": ("llama2", {
            "added_tokens": [dict(t, normalized=True) for t in llama2["added_tokens"]]}),
        "gpt2_prefix_space": ("gpt2", {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": False}, dict(BYTE_LEVEL, add_prefix_space=True)]},
            "decoder": None}),
        "gpt2_removed": ("gpt2", {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": r"[^\s.,\-]+(?:\p{P}(?!\p{P}))?|(?=\p{Sm}).{1,2}|\t{2,}|[=-~]++"},
                 "behavior": "Removed", "invert": True},
                {"type": "Split", "pattern": {"String": "an"}, "behavior": "Isolated", "invert": False},
                BYTE_LEVEL_ONLY]}}),
        "qwen2_added": ("qwen2", {"added_tokens": options}),
    }


SPECIAL_TEXTS = [
    "{0}", "{0}{0}", "a{0}b", " {0} ", "{0}user\nHello there{1}\n{0}assistant\n", "x {1}  y", "{0} 12 {1}",
    "\n{0}\n\n{1}\n", "{0}é{1}e\u0301", "{0}'s {1}'LL", "a{0} b {1}c  {0}", "<|im_start", "{0", "{1}}", "<tool_call>{{}}</tool_call>",
    "a <left> b", "a  \t<left>b", "a <right>  \n b", "a <both> <both>  <left>", "word swordword word.", "wordword word_", "_word word\u200d",
    "e\u0301t \u00e9t e\u0301te\u0301t", "a  b   c    d", "<left<l<le", "x <gap> <right>  <gap>  <both> <gap>", "caf\u00e9 cafe\u0301s  cafe\u0301 x",
    "\u3000<left>\u3000<right>\u3000.", "word", " word", "\u00e9word wordé word", "",
]


def block_starts():
    """Code points whose classes are compared, as (first, last + 1, step)."""
    return [(0, 0x3400, 1), (0xa000, 0xac00, 1), (0xd7a0, 0xd800, 1), (0xf900, 0x14800, 1),
            (0x16000, 0x18d80, 1), (0x1aff0, 0x20000, 1), (0x20000, 0x40000, 61), (0xe0000, 0xe0200, 1)]


def hash_ids(value, ids):
    """FNV-1a over the ids, each as one 32-bit unit."""
    for token in ids:
        value = ((value ^ token) * 0x01000193) & 0xffffffff
    return value


def code_point_hashes(tokenizer):
    """One hash per range of 256 code points: of the ids of a text around each of them."""
    hashes = []
    for first, last, step in block_starts():
        points = list(range(first, last, step))
        for i in range(0, len(points), 256):
            texts = [f"a{chr(c)}b {chr(c)}1{chr(c)}{chr(c)} '{chr(c)}" for c in points[i:i + 256]]
            value = 0x811c9dc5
            for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
                value = hash_ids(value, encoding.ids)
            hashes.append(value)
    return hashes


def expect(tokenizer, strings, specials, full):
    """Everything that the tests compare for one tokenizer."""
    rng = random.Random(7)
    size = tokenizer.get_vocab_size()
    plain = [e.ids for e in tokenizer.encode_batch(strings, add_special_tokens=False)]
    decoded = {}
    for i, (text, ids) in enumerate(zip(strings, plain)):
        back = tokenizer.decode(ids, skip_special_tokens=False)
        if back != text:
            decoded[str(i)] = back
    # The package decodes a normalized special token in its normalized spelling and then does not know
    # it as special any more. Ours skips by id, so there is nothing to compare.
    skips = all(tokenizer.id_to_token(i) == t.content
                for i, t in tokenizer.get_added_tokens_decoder().items())

    def decode(ids):
        both = {"decoded": tokenizer.decode(ids, skip_special_tokens=False)}
        if skips:
            both["skipped"] = tokenizer.decode(ids, skip_special_tokens=True)
        return both

    special = []
    for text in SPECIAL_TEXTS:
        text = text.replace("{0}", specials[0]).replace("{1}", specials[-1])
        ids = tokenizer.encode(text, add_special_tokens=True).ids
        special.append({"text": text, "ids": ids, **decode(ids)})
    arbitrary = []
    byte_like = [i for i in range(size) if len(tokenizer.decode([i])) == 1
                 or (tokenizer.id_to_token(i) or "").startswith("<0x")] or [0]
    for _ in range(300):
        pool = byte_like if rng.random() < 0.6 else range(size + 2)
        ids = [rng.choice(pool) for _ in range(rng.randint(1, 14))]
        arbitrary.append({"ids": ids, **decode(ids)})
    result = {"made_with": f"tokenizers {tokenizers.__version__}", "vocab_size": size, "plain": plain,
              "decoded": decoded, "special": special, "arbitrary": arbitrary}
    if full:
        result["code_points"] = code_point_hashes(tokenizer)
    return result


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{path} {path.stat().st_size:,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2-135M-Instruct as GGUF")
    parser.add_argument("--output", type=Path, default=Path("tests/data/tokenizer"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    strings = make_strings()
    write(arguments.output / "strings.json", strings)
    full = read_gguf(arguments.gguf)
    corpus = SENTENCES * 4 + CODE * 2 + strings
    families = {"smollm2": cut(full, 3000), **make_byte_level_families(corpus),
                "llama2": make_llama2(corpus)}
    for name, content in families.items():
        write(arguments.output / f"{name}.json", content)

    jobs = {name: (name, {}) for name in families} | make_variants(families)
    for name, (family, changes) in jobs.items():
        content = {**families[family], **changes}
        specials = [t["content"] for t in content["added_tokens"] if t["special"]]
        tokenizer = Tokenizer.from_str(json.dumps(content))
        is_family = name in families
        expected = expect(tokenizer, strings if is_family else strings[::5], specials, is_family)
        write(arguments.output / f"{name}_expected.json",
              {"tokenizer": f"{family}.json", "changes": changes, **expected})
    expected = expect(Tokenizer.from_str(json.dumps(full)), strings,
                      [t["content"] for t in full["added_tokens"]], True)
    write(arguments.output / "smollm2_full_expected.json", {"tokenizer": "", "changes": {}, **expected})


if __name__ == "__main__":
    main()
