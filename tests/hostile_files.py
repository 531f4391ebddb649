"""Files that make an unguarded FFmpeg read other files or addresses: playlists, scripts, and containers that refer to others."""

import struct
from collections.abc import Callable
from pathlib import Path

from videos import noise_video


def hls(target: str) -> bytes:
    return (
        f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n{target}\n#EXT-X-ENDLIST\n".encode()
    )


def dash(target: str) -> bytes:
    return f"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S"
 profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="9"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>
""".encode()


def concat_script(target: str) -> bytes:
    return f"ffconcat version 1.0\nfile '{target}'\nduration 9\n".encode()


def sdp(target: str) -> bytes:
    port = target.partition("127.0.0.1:")[2].partition("/")[0] or "9"
    return (
        f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=control:{target}\r\n"
        f"m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    ).encode()


def svg(target: str) -> bytes:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="320" height="240">'
        f'<image xlink:href="{target}" width="320" height="240"/></svg>'
    ).encode()


def ass(target: str) -> bytes:
    return (
        f"[Script Info]\nScriptType: v4.00+\nTitle: {target}\n[Events]\nFormat: Layer, Start, End, Text\n"
        f"Dialogue: 0,0:00:00.00,0:00:09.00,{{\\img({target})}}x\n"
    ).encode()


def gab2_avi(target: str) -> bytes:
    """An AVI whose subtitles are a playlist, which FFmpeg opens while it reads the AVI."""
    playlist = hls(target)
    packet = b"GAB2\0" + struct.pack("<HI", 2, 4) + b"x\0\0\0" + struct.pack("<HI", 4, len(playlist)) + playlist
    main = struct.pack("<14I", 33333, 1000, 0, 0x10, 9, 0, 1, 4096, 320, 240, 0, 0, 0, 0)
    stream = b"txts" + bytes(4) + struct.pack("<IHHIIIIIIII", 0, 0, 0, 0, 1, 30, 0, 9, 4096, 0, 0) + bytes(8)
    headers = _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", bytes(40)))
    body = _list(b"hdrl", headers) + _list(b"movi", _chunk(b"00tx", packet) * 3)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"AVI " + body


def external_track(path: Path, target: str) -> bytes:
    """A QuickTime file whose track lies in another file."""
    content = bytearray(noise_video(path, frames=60).read_bytes())
    alias = b"".join(
        (
            bytes(10), bytes([4]) + b"disk".ljust(27, b"\0"), bytes(12), bytes([5]) + b"x.mp4".ljust(63, b"\0"), bytes(16),
            struct.pack(">HH", 1, 1), bytes(16), struct.pack(">HH", 2, len(target) + len(target) % 2),
            target.encode().ljust(len(target) + len(target) % 2, b"\0"), struct.pack(">HH", 0xFFFF, 0),
        )
    )  # fmt: skip
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    address = struct.pack(">I4sI", 12 + len(target) + 1, b"url ", 0) + target.encode() + b"\0"
    start = content.index(b"dref") - 4
    old = int.from_bytes(content[start : start + 4], "big")
    new = struct.pack(">I4sII", 16 + len(entry) + len(address), b"dref", 0, 2) + entry + address
    content[start : start + old] = new
    for name in (
        b"moov",
        b"trak",
        b"mdia",
        b"minf",
        b"dinf",
    ):  # what contains it grows; the index is behind the pictures
        at = content.index(name) - 4
        content[at : at + 4] = (int.from_bytes(content[at : at + 4], "big") + len(new) - old).to_bytes(4, "big")
    return bytes(content)


HOSTILE: dict[str, Callable[[Path, str], bytes]] = {
    "playlist.m3u8": lambda _, target: hls(target),
    "playlist.mp4": lambda _, target: hls(target),
    "manifest.mpd": lambda _, target: dash(target),
    "script.mp4": lambda _, target: concat_script(target),
    "script.ffconcat": lambda _, target: concat_script(target),
    "session.sdp": lambda _, target: sdp(target),
    "drawing.svg": lambda _, target: svg(target),
    "subtitles.ass": lambda _, target: ass(target),
    "subtitles.avi": lambda _, target: gab2_avi(target),
    "external.mov": external_track,
}
"""File name -> its content, from a scratch file and the address that it refers to."""


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _list(name: bytes, content: bytes) -> bytes:
    return _chunk(b"LIST", name + content)
