"""Join outline icons into sprite.svg: `build.py DIRECTORY NAME…`."""

import re
import sys
from pathlib import Path

LOOK = 'viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"'

directory, names = Path(sys.argv[1]), sorted(set(sys.argv[2:]))
symbols = []
for name in names:
    drawing = re.search(r"<svg[^>]*>(.*)</svg>", (directory / f"{name}.svg").read_text(encoding="utf-8"), re.DOTALL)
    paths = [line.strip() for line in drawing[1].splitlines() if line.strip() and 'd="M0 0h24v24H0z"' not in line]
    symbols.append(f'<symbol id="{name}" {LOOK}>{"".join(paths)}</symbol>')
sprite = '<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n"
Path(__file__).with_name("sprite.svg").write_text(sprite, encoding="utf-8")
