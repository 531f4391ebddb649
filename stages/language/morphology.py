"""Inflected forms of English words, by spelling."""

import functools

_IRREGULAR = {
    "person": "persons", "man": "men", "woman": "women", "child": "children", "foot": "feet", "run": "ran",
    "sit": "sat", "stand": "stood", "lie": "lying lay lain", "swim": "swam swum", "throw": "threw thrown",
    "catch": "caught", "swing": "swung", "ride": "rode ridden", "fall": "fell fallen", "spin": "spun",
    "kneel": "knelt", "shake": "shook shaken", "dive": "dove", "write": "wrote written", "draw": "drew drawn",
    "wear": "wore worn", "eat": "ate eaten", "drink": "drank drunk", "sweep": "swept", "dig": "dug", "leap": "leapt",
    "slide": "slid", "get": "got gets", "put": "puts", "calf": "calves", "lady": "ladies", "bend": "bent",
}  # fmt: skip


@functools.cache
def forms(word: str) -> frozenset[str]:
    """A word with its plural and its -s, -ing, -ed and -er forms by English spelling rules, and known irregular forms."""
    found = {word, *_IRREGULAR.get(word, "").split()}
    if not word.isascii() or len(word) < 3:
        return frozenset(found)
    vowels = "aeiou"
    if word.endswith("y") and word[-2] not in vowels:
        found |= {word[:-1] + "ies", word[:-1] + "ied", word + "ing", word[:-1] + "ier"}
    elif word.endswith("e"):
        found |= {word + "s", word + "d", word[:-1] + "ing", word + "r", word + "rs"}
    else:
        found.add(word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "o")) else "s"))
        doubles = word[-1] not in vowels + "wxyh" and word[-2] in vowels and word[-3] not in vowels
        for stem in {word, word + word[-1]} if doubles else {word}:
            found |= {stem + "ing", stem + "ed", stem + "er", stem + "ers"}
    return frozenset(found)
