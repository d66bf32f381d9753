#!/usr/bin/env python3
"""Read triggers of coherent WaveBurst as GraceDB's server does, and list what it
makes of them.

Usage: check_cwb.py FILE...     (- for standard input)

Exits with 1 if a file would be taken for one of those of old, which have no
event_time and whose false alarm rate is looked for below "#significance": it is 1
Hz if that line cannot be read. Also if what an event needs is missing.
"""

import sys

sys.dont_write_bytecode = True  # beside the files

import check_files  # noqa: E402


def read(lines):
    """Return the values of each key, and whether the file is one of those of old."""
    values = {}
    for line in lines:
        key, colon, rest = line.partition(":")
        if colon:
            values[key.split()[0]] = rest.split()
    old = not values.get("event_time") or not values.get("far")
    if old:
        values["event_time"] = values.get("time", ["0"])[:1]
        values["far"], values["mchirp"] = ["0"], values.get("chirp", ["0", "0"])[1:2]
        for line, following in zip(lines, lines[1:]):
            if line.startswith("#significance based on the last"):
                try:
                    values["far"] = [str(float(following.split()[1]))]
                except (IndexError, ValueError):
                    values["far"] = ["1.0"]
    return values, old


def check(path):
    with (open(0) if path == "-" else open(path)) as f:
        values, old = read(f.readlines())
    far, gps = float(values["far"][0]), float(values["event_time"][0])
    ifos, times = values["ifo"], values["time"]
    print(f"  far {far:g} Hz, gpstime {gps:.6f}, mchirp {float(values['mchirp'][0]):g}, {','.join(sorted(ifos))}")
    if old:
        raise ValueError("no event_time or far: taken for a file of old")
    if not 0 < far < 1 or not 1e9 < gps < 2e9:
        raise ValueError("far or event_time is not one")
    if len(times) != len(ifos) or any(abs(float(t) - gps) > 0.1 for t in times):
        raise ValueError("time: not one for each of ifo, near event_time")
    for key in ("likelihood", "rho", "duration", "strain", "frequency", "bandwidth", "mchirp"):
        float(values[key][0])
    for key in ("phi", "theta"):
        float(values[key][2])


if __name__ == "__main__":
    check_files.main(check, __doc__)
