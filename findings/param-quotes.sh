#!/usr/bin/env bash
# igwn-ligolw 2.1.0: a Param of type lstring that holds a double quote or a backslash grows each time it is written and read.
#
# Writing a Param escapes both as in the columns of tables. Reading a column undoes that; reading a Param does not, but
# takes off a quote that stands first or last. So a document that is only read and written again is another each time,
# and one that is handed on from program to program, such as a command line in it, cannot be compared or searched.
#
# Seen (a text, and what it is after one, two and three times of writing and reading):
#   --name="a b" FILE | --name=\"a b\" FILE | --name=\\\"a b\\\" FILE | --name=\\\\\\\"a b\\\\\\\" FILE
#   " | \ | \\ | \\\\
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check igwn-ligolw==2.1.0 numpy==2.4.6
cat >"$work/ask.py" <<'EOP'
import io

from igwn_ligolw import ligolw, utils


def again(document):
    out = io.BytesIO()
    utils.write_fileobj(document, out)
    return utils.load_fileobj(io.BytesIO(out.getvalue()))


def param(text):
    document = ligolw.Document()
    document.appendChild(ligolw.LIGO_LW()).appendChild(ligolw.Param.from_pyvalue("x", text))
    seen = []
    for _ in range(3):
        document = again(document)
        seen.append(ligolw.Param.get_param(document, "x").value)
    return seen


for text in 'plain text', '--name="a b" FILE', 'C:\\d', '"':
    print(*[text] + param(text), sep=" | ")
EOP
"$work/venv/bin/python" -W ignore "$work/ask.py" | tee "$work/seen"
diff "$work/seen" - <<'EOP'
plain text | plain text | plain text | plain text
--name="a b" FILE | --name=\"a b\" FILE | --name=\\\"a b\\\" FILE | --name=\\\\\\\"a b\\\\\\\" FILE
C:\d | C:\\d | C:\\\\d | C:\\\\\\\\d
" | \ | \\ | \\\\
EOP
