"""The visual benchmark: a picture gets another name, that name another fact, and both are asked for in one question.

Its data sets, metrics and protocol are those of VLKEB and of MemEIC's CCKEB (arXiv 2510.25798), and a world of drawn
emblems beside them; records, methods and metrics are kept apart from those of the text benchmark.
"""
