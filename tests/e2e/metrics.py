#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads metrics in Prometheus' text format, strictly, and prints an expression of them.

metrics.py FILE|PORT EXPRESSION: m('name', label='value', …) is a sample of ckfast_gpud_name.
"""
import re
import sys
import urllib.request

PREFIX = 'ckfast_gpud_'
NAME = r'[a-zA-Z_:][a-zA-Z0-9_:]*'
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(r'(%s)(?:\{(%s(?:,%s)*)\})? ([0-9]+(?:\.[0-9]+)?)' % (NAME, LABEL, LABEL))


def read(text):
    """Samples by name and labels. A family has a HELP line, a TYPE line, and then its samples."""
    assert text.endswith('\n'), 'the last line does not end'
    samples, types, helped, family = {}, {}, set(), None
    for line in text.splitlines():
        words = line.split(' ', 3)
        if words[:2] == ['#', 'HELP']:
            assert words[2] not in helped and words[3].strip(), line
            helped.add(words[2])
            family = words[2]
        elif words[:2] == ['#', 'TYPE']:
            assert words[2] == family and family not in types, line
            assert words[3] in ('counter', 'gauge'), line
            types[family] = words[3]
        else:
            match = SAMPLE.fullmatch(line)
            assert match, 'not a sample: %r' % line
            name, value = match.group(1), float(match.groups()[-1])
            assert name == family and name in types, 'not with its family: %r' % line
            assert name.startswith(PREFIX), line
            assert name.endswith('_total') == (types[name] == 'counter'), line
            labels = re.findall(LABEL, match.group(2) or '')
            key = name[len(PREFIX):], tuple(sorted(labels))
            assert len(dict(labels)) == len(labels) and key not in samples, 'twice: %r' % line
            samples[key] = value
    assert samples
    return samples


def main():
    if sys.argv[1].isdigit():
        with urllib.request.urlopen('http://127.0.0.1:%s/metrics' % sys.argv[1]) as reply:
            assert reply.headers['Content-Type'].startswith('text/plain; version=0.0.4')
            samples = read(reply.read().decode('ascii'))
    else:
        samples = read(open(sys.argv[1], encoding='ascii').read())

    def m(name, **labels):
        return samples[name, tuple(sorted(labels.items()))]

    print(eval(sys.argv[2], {'m': m, 'samples': samples}))


main()
