"""The networks that GMS is compared with, written from their papers, as models of this project.

registry.py  which there are; a new one is a line here and a file beside it
network.py   what all of them are to the rest of the program
run.py       their run folders
layers.py    what several of them are made of
"""
