#!/usr/bin/env python3
"""Parse LIGO_LW files with igwn-ligolw and list what is in them.

Usage: check_ligolw.py FILE...     (gzipped if it ends in .gz, - for standard input)
Needs: pip install igwn-ligolw

Exits with 1 if a file does not parse, if a table or column is not one that
igwn-ligolw knows, if a table of a coincidence is missing, if rows point to rows
that are not there, or if an array has another shape than it says.
"""

import sys
import types

try:
    import lal  # noqa: F401
except ImportError:
    # lsctables wants lal for its arithmetic on times, which is not used here: only
    # for the names and types of the columns. lal itself is 400 MB.
    sys.modules["lal"] = types.ModuleType("lal")
    sys.modules["lal"].LIGOTimeGPS = float

sys.dont_write_bytecode = True  # beside the files

import check_files  # noqa: E402
from igwn_ligolw import ligolw, lsctables, utils  # noqa: E402

NEEDED = (
    "process", "process_params", "sngl_inspiral", "coinc_inspiral", "coinc_event",
    "coinc_event_map", "coinc_definer", "time_slide", "segment",
)


def rows(doc, name):
    table = lsctables.TableByName[name].get_table(doc)
    columns = [c.Name for c in table.getElementsByTagName(ligolw.Column.tagName)]
    for row in table:
        for column in columns:  # every cell can be read
            getattr(row, column)
    return table


def check(path):
    with (sys.stdin.buffer if path == "-" else open(path, "rb")) as f:
        doc = utils.load_fileobj(f, compress="auto")
    tables = {}
    for table in doc.getElementsByTagName(ligolw.Table.tagName):
        if table.Name not in lsctables.TableByName:
            raise ValueError(f"unknown table {table.Name}")
        table.validcolumns  # raises if it is not a table of lsctables
        for column in table.getElementsByTagName(ligolw.Column.tagName):
            known = {ligolw.Column.ColumnName(k): v for k, v in table.validcolumns.items()}
            if known.get(column.Name) != column.Type:
                raise ValueError(f"{table.Name}: column {column.Name} {column.Type}")
        tables[table.Name] = rows(doc, table.Name)
        print(f"  {table.Name:16} {len(table):4} rows, {len(table.columnnames)} columns")
    for name in NEEDED:
        if not len(tables.get(name, ())):
            raise ValueError(f"no rows of {name}")

    processes = {r.process_id for r in tables["process"]}
    triggers = {r.event_id for r in tables["sngl_inspiral"]}
    coincs = {r.coinc_event_id for r in tables["coinc_event"]}
    for name, table in tables.items():
        for row in table:
            if getattr(row, "process_id", next(iter(processes))) not in processes:
                raise ValueError(f"{name}: process_id {row.process_id}")
    for row in tables["coinc_event_map"]:
        if row.event_id not in triggers or row.coinc_event_id not in coincs:
            raise ValueError("coinc_event_map points to nothing")

    for array in doc.getElementsByTagName(ligolw.Array.tagName):
        dims = tuple(int(d.pcdata) for d in array.getElementsByTagName(ligolw.Dim.tagName))
        if array.array.shape != dims[::-1]:
            raise ValueError(f"{array.Name}: shape {array.array.shape}, says {dims}")
        series = array.parentNode
        print(f"  {series.Name} {array.Name}: {array.array.shape}")
        params = [p.Name for p in series.getElementsByTagName(ligolw.Param.tagName)]
        if series.Name == "COMPLEX8TimeSeries":
            event, = (p for p in series.getElementsByTagName(ligolw.Param.tagName) if p.Name == "event_id")
            if event.value not in triggers:
                raise ValueError(f"SNR of unknown trigger {event.value}")
        elif "instrument" not in params:
            raise ValueError(f"{series.Name} without instrument")


if __name__ == "__main__":
    check_files.main(check, __doc__)
