"""Draws a contact sheet as one PNG: a card for each clip with its frames in a row and its caption below."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

from pipelines.contact_sheet_card import Card

_FRAME_PX, _GAP_PX, _PADDING_PX, _MARGIN_PX = 176, 6, 14, 20
_FRAMES_PX = 4 * _FRAME_PX + 3 * _GAP_PX
_CARD_PX = (_FRAMES_PX + 2 * _PADDING_PX, _FRAME_PX + 92 + 2 * _PADDING_PX)
_PAGE, _CARD, _EDGE, _INK, _FAINT, _FAULT = "#f4f5f7", "#ffffff", "#e1e4e8", "#1b1f24", "#667080", "#b3261e"
_CAPTION_LINES = 2


def draw_image(cards: list[Card]) -> bytes:
    """Draws the sheet, one or two cards beside each other.

    Args:
        cards: The clips, in reading order.

    Returns:
        A PNG file that is the same for the same cards.
    """
    num_columns = 2 if len(cards) > 4 else 1
    num_lines = max(1, -(-len(cards) // num_columns))
    step_x, step_y = _CARD_PX[0] + _MARGIN_PX, _CARD_PX[1] + _MARGIN_PX
    image = Image.new("RGB", (_MARGIN_PX + num_columns * step_x, _MARGIN_PX + num_lines * step_y), _PAGE)
    draw = ImageDraw.Draw(image)
    if not cards:
        draw.text((_MARGIN_PX * 2, _MARGIN_PX * 2), "No written clips.", _FAINT, ImageFont.load_default(size=20))
    for number, card in enumerate(cards):
        line, column = divmod(number, num_columns)
        _draw_card(image, draw, card, _MARGIN_PX + column * step_x, _MARGIN_PX + line * step_y)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_card(image: Image.Image, draw: ImageDraw.ImageDraw, card: Card, left: int, top: int) -> None:
    caption_font, small_font = ImageFont.load_default(size=19), ImageFont.load_default(size=14)
    right, bottom = left + _CARD_PX[0], top + _CARD_PX[1]
    draw.rounded_rectangle((left, top, right, bottom), radius=10, fill=_CARD, outline=_EDGE)
    x, y = left + _PADDING_PX, top + _PADDING_PX
    for number, frame in enumerate(card.frames.values()):
        picture = Image.fromarray(frame).resize((_FRAME_PX, _FRAME_PX), Image.Resampling.LANCZOS)
        image.paste(picture, (x + number * (_FRAME_PX + _GAP_PX), y))
    if card.fault:
        for position, text in enumerate(wrap(card.fault, small_font, _FRAMES_PX, 4)):
            draw.text((x, y + position * 20), text, _FAULT, small_font)
    y += _FRAME_PX + 12
    for position, text in enumerate(wrap(card.row["caption"] or "", caption_font, _FRAMES_PX, _CAPTION_LINES)):
        draw.text((x, y + position * 25), text, _INK, caption_font)
    row = card.row
    frames = f"frames {row['start_frame']} to {row['end_frame']}"
    facts = f"{row['dataset']}, camera {row['camera']}, {frames} of {row['source_episode']}, {row['clip_id']}"
    draw.text((x, y + _CAPTION_LINES * 25 + 8), wrap(facts, small_font, _FRAMES_PX, 1)[0], _FAINT, small_font)


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float, max_lines: int) -> list[str]:
    """Breaks text into at most `max_lines` lines of at most `width_px`, at spaces where that is possible.

    What does not fit is cut off with an ellipsis. Characters that are not printable become spaces.
    """
    words = "".join(letter if letter.isprintable() else " " for letter in text).split(" ")
    lines: list[str] = []
    rest = " ".join(word for word in words if word)
    while rest and len(lines) < max_lines:
        length = len(rest)
        if font.getlength(rest) > width_px:
            length = _fitting(rest, font, width_px)
            space = rest.rfind(" ", 0, length + 1)
            length = space if space > 0 else length
        lines.append(rest[:length])
        rest = rest[length:].lstrip()
    if rest:
        lines[-1] = lines[-1][: _fitting(lines[-1] + "…", font, width_px - font.getlength("…"))].rstrip() + "…"
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> int:
    """Length of the longest beginning that fits, at least 1."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width_px else (low, middle - 1)
    return low
