"""A double of an unmodified Phlix media server: PHP on Workerman, as its peers see it.

Written from the wire page, the API page and the library page alone, with the standard library alone, so
that it shares no mistake with the hub that it tests.
"""
