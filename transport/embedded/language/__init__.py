"""The language of scripts: a scanner over the text, the parts a script is made of, and the parsers that read them.

`parser.parse` is the way in; `syntax` holds what it gives. This room knows nothing of running scripts.
"""
