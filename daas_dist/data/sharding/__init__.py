"""Making and checking shards: plain webdataset tar files with a manifest and an index beside them.

sources.py   what shards are made of: a folder, the ILSVRC2012 archives, arrays, any iterable
tars.py      one shard: packed, and read member by member
build.py     a folder of shards from a source, finished by a rerun wherever it was killed
verify.py    whether shards are what their manifest says
command.py   `daas shards`

They are read by daas_dist/data/shards.py.
"""
