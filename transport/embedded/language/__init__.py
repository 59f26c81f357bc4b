"""The language of scripts: a scanner over the text, the parts of a script, and a parser in layers that reads them.

`parser.parse` is the way in; `syntax` holds what it gives. This room knows nothing of running scripts.
"""
