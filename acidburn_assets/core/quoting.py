"""Text of others as data for a language model, and text of a model as text for people.

Both are foreign: a passage may hold orders to the model that reads it, and what the model writes
may repeat what a passage holds.
"""

import html
import re
import unicodedata

LINK_LEFT_OUT = "(link left out)"

_TAGS = (
    "a|abbr|address|applet|area|article|aside|audio|b|base|bdi|bdo|blockquote|body|br|button|"
    "canvas|caption|center|cite|code|col|colgroup|data|datalist|dd|del|details|dfn|dialog|div|dl|"
    "dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|frameset|h[1-6]|head|header|hr|"
    "html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|marquee|math|menu|meta|"
    "meter|nav|noscript|object|ol|optgroup|option|output|p|param|picture|pre|progress|q|rp|rt|"
    "ruby|s|samp|script|section|select|slot|small|source|span|strike|strong|style|sub|summary|sup|"
    "svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr"
)
"""Names of HTML. Source: the HTML living standard, elements, and those it calls obsolete."""

_TO_SPACES = {ord(character): " " for character in "\t\n\r"}

_HTML = re.compile(rf"<!--.*?-->|</?(?:{_TAGS})(?:[\s/][^<>]*)?>", re.I | re.S)
_WITH_CONTENT = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>", re.I | re.S)
_TAG_LIKE = re.compile(r"<(?=[a-z/!?])([^<>]*)>?", re.I)
_MARKDOWN_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:[^()]|\([^()]*\)){0,500}\)")
_ADDRESS = re.compile(
    r"<?(?:[a-z][a-z0-9+.-]{0,20}://"
    r"|\bwww\.|\b(?:mailto|javascript|vbscript|data|file|tel):(?=\S))"
    r"[^\s<>\"'`)\]}]*>?",
    re.I,
)


def printable(text: str) -> str:
    """Without what changes how other text is shown: controls, bidi marks, zero widths."""
    on_one_line = text.translate(_TO_SPACES)
    if on_one_line.isprintable():  # most texts are; looking at each character takes 50 times longer
        return on_one_line
    return "".join(
        " " if character in "\t\n\r" else character
        for character in text
        if character in "\t\n\r" or not unicodedata.category(character).startswith("C")
    )


def quoted(text: str) -> str:
    """Text as data: no character of it can open or close a marker."""
    return html.escape(" ".join(printable(text).split()), quote=False)


def plain(text: str) -> str:
    """What a model wrote, as plain text: lines are kept; links, HTML and what cannot be seen go.

    A link's words stay and its address does not, whoever wrote it: a reader would take it for ours.
    Angle brackets that look like another tag become ‹ ›, so that the text is inert wherever it is
    shown.
    """
    shown = "\n".join(printable(line) for line in text.splitlines())
    before = None
    while before != shown:  # what is left may make a tag or a link anew
        before = shown
        shown = _MARKDOWN_LINK.sub(_words_of, shown)
        shown = _ADDRESS.sub(LINK_LEFT_OUT, shown)
        shown = _HTML.sub("", _WITH_CONTENT.sub("", shown))
    shown = _TAG_LIKE.sub(lambda found: f"‹{found[1]}" + "›" * found[0].endswith(">"), shown)
    lines = "\n".join(" ".join(line.split()) for line in shown.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def _words_of(link: re.Match[str]) -> str:
    words = link[1].strip()
    # a citation that the model made a link of stays a citation
    return f"[{words}]" if re.fullmatch(r"\d+(?:\s*,\s*\d+)*", words) else words
