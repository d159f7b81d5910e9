"""An extension of griffe: what has no docstring is documented by what it overrides or by the protocol it implements."""

from __future__ import annotations

import griffe

PROTOCOLS = ("gentraj.config", "gentraj.trajectory")  # modules of protocols that classes implement without naming them


class Inherit(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: object) -> None:
        promised: dict[str, griffe.Docstring] = {}
        for protocol in (each for module in PROTOCOLS for each in loader.modules_collection[module].classes.values()):
            if "Protocol" in map(str, protocol.bases):
                told = {name: member.docstring for name, member in protocol.members.items() if member.docstring}
                promised = told | promised
        inherit(pkg, promised)


def inherit(parent: griffe.Module | griffe.Class, promised: dict[str, griffe.Docstring]) -> None:
    """Gives the undocumented members of all classes below `parent` the docstrings of what they stand for."""
    for member in parent.members.values():
        if member.is_alias:
            continue
        if isinstance(parent, griffe.Class) and not member.docstring:
            above = (base.members.get(member.name) for base in parent.mro())
            inherited = (each.docstring for each in above if each and each.docstring)
            member.docstring = next(inherited, promised.get(member.name))
        if isinstance(member, griffe.Module | griffe.Class):
            inherit(member, promised)
