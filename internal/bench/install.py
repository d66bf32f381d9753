"""Says how many packages ligo-gracedb[kafka] brings along, and how many bytes their files have."""
import importlib.metadata
import json
import re

from packaging.requirements import Requirement

seen, todo, size = set(), [("ligo-gracedb", {"kafka"})], 0
while todo:
    name, extras = todo.pop()
    name = re.sub(r"[-_.]+", "-", name).lower()
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        continue  # not for this platform
    if name not in seen:
        seen.add(name)
        size += sum(f.locate().stat().st_size for f in found.files or [] if f.locate().is_file())
    for text in found.requires or []:
        r = Requirement(text)
        if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras | {""}):
            if re.sub(r"[-_.]+", "-", r.name).lower() not in seen:
                todo.append((r.name, set(r.extras)))
print(json.dumps({"packages": len(seen), "bytes": size}))
