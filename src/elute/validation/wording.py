"""Words of names: labels of databases made readable, what says the same in other words, and equal names told apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

LONGEST = 60
_IDS = re.compile(r"\s*[(\[]?\b(?:GO:\d{7}|R-HSA-\d+|HP:\d{7}|CL:\d{7}|MONDO:\d+|WP\d+|hsa\d{5})\b[)\]]?")
_COLLECTION = re.compile(r"^(?:HALLMARK|REACTOME|GO(?:BP|CC|MF)|KEGG(?:_MEDICUS)?|WP|BIOCARTA|PID|HP)_(?=[A-Z0-9])")
_SPELT = re.compile(  # words with vowels that are capitals all the same
    "AKT|AMPK|ATP|DNA|ECM|EGFR|EIF|EMT|ER|ERBB|ERK|FOXO|GABA|HIV|HLA|HOX|I{2,3}|I[LV]|JAK|KRAS|MAPK|MTOR|MYC|NADP?H?|"
    "NFAT|NOD|PDGFA|PPAR|RA[BCS]|RHO|RIG|RNA|ROBO|ROS|RUNX|SUMO|TCA|TNFA|UPR|UV|VEGFA|VI{1,2}|YAP"
)
_WORDS = {"DN": "down", "A": "a"}
_SAME = (("natural killer", "nk"), ("lymphocyte", "cell"), ("haemato", "hemato"), ("signalling", "signaling"))
_NOTHING = re.compile("an?|the|of|and|in|on|by|to|for|with|cells?|type|positive|negative|human|like|other")


def tidy(label: str, *, longest: int = LONGEST) -> str:
    """Return a term's label as a person would write it: HALLMARK_TNFA_SIGNALING_VIA_NFKB, TNFA signalling via NFKB."""
    text = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    bare = _COLLECTION.sub("", text)
    if bare == bare.upper() and " " not in bare and ("_" in bare or bare != text):
        text = " ".join(_spoken(word) for word in bare.split("_") if word)
        text = text[:1].upper() + text[1:]
    text = _IDS.sub("", text).strip(" ,;:-") or text
    text = re.sub(r"(?<=[Ss])ignaling\b", "ignalling", text)
    return short(text, longest)


def short(text: str, longest: int = LONGEST) -> str:
    """Cut a text that is too long at the end of a word."""
    if len(text) <= longest:
        return text
    cut = text[: longest - 1]
    whole = cut if text[longest - 1].isspace() else cut.rpartition(" ")[0]
    return (whole if len(whole) > longest // 2 else cut).rstrip(" ,;:-(") + "…"


def say_the_same(label: str, other: str) -> bool:
    """Whether two names share a word that means something: `CD14+ monocyte` and `classical monocytes` do."""
    return bool(_meaning(label) & _meaning(other))


def apart(names: Mapping[int, str], genes: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Tell features of one name apart, each by as few of its leading genes as it takes, two at most; else by number."""
    same: dict[str, list[int]] = {}
    for feature, name in names.items():
        same.setdefault(name, []).append(feature)
    told = dict(names)
    for name, features in same.items():
        if len(features) == 1:
            continue
        said = set(re.split(r"[ ,:()]+", name))
        own = {f: [gene for gene in genes.get(f, ()) if gene not in said] for f in features}
        shown = [{f: ", ".join(own[f][:most]) for f in features} for most in (1, 2)]
        counts = [Counter(each.values()) for each in shown]
        for f in features:
            alone = (each[f] for each, n in zip(shown, counts, strict=True) if each[f] and n[each[f]] == 1)
            mark = next(alone, f"{shown[0][f]} #{f}".strip())
            mark = mark if len(mark) <= LONGEST // 2 else f"#{f}"
            told[f] = f"{short(name, LONGEST - len(mark) - 3)} ({mark})"
    often = Counter(told.values())  # two names may have become one where they were cut
    return {
        f: name if often[name] == 1 else f"{short(name, LONGEST - len(str(f)) - 2)} #{f}" for f, name in told.items()
    }


def _spoken(word: str) -> str:
    known = (
        len(word) == 1
        or _SPELT.fullmatch(word) is not None
        or any(c.isdigit() for c in word)
        or not set(word) & set("AEIOUY")
    )
    return _WORDS.get(word) or (word if known else word.lower())


def _meaning(text: str) -> set[str]:
    text = text.lower()
    for words, instead in _SAME:
        text = text.replace(words, instead)
    text = re.sub(r"\b([a-z])[ -]cells?\b", r"\1cell", text if len(text.strip()) > 1 else f"{text.strip()} cell")
    found = {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in re.findall("[a-z0-9]+", text)}
    return {word for word in found if not _NOTHING.fullmatch(word)}
