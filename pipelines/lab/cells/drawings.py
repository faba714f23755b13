"""Drawings of the cells: the signals of one step, and of a sequence in both directions."""

from __future__ import annotations

from pipelines.lab.cells.svg import GATE, INK, SOFT, STATE, Drawing, above, below, left, right, rim


def draw_rnn() -> Drawing:
    """One step of the vanilla cell, with the output layer V."""
    drawing = Drawing(620, 330, "One step of a recurrent layer")
    w, plus, tanh, u, v = (150, 160), (260, 160), (360, 160), (260, 250), (470, 90)
    drawing.line([(40, 160), left(w)], STATE)
    drawing.line([right(w), rim(plus, "left")], STATE)
    drawing.line([(260, 310), below(u)])
    drawing.line([above(u), rim(plus, "below")])
    drawing.line([rim(plus, "right"), left(tanh)])
    drawing.line([right(tanh), (590, 160)], STATE)
    drawing.line([(470, 160), below(v)])
    drawing.dot((470, 160), STATE)
    drawing.line([above(v), (470, 36)])
    for center, name in ((w, "W"), (u, "U"), (v, "V")):
        drawing.box(center, name, SOFT)
    drawing.box(tanh, "tanh")
    drawing.circle(plus, "+")
    drawing.text((60, 140), "h_t−1", STATE)
    drawing.text((575, 140), "h_t", STATE)
    drawing.text((285, 310), "x_t")
    drawing.text((470, 22), "y_t")
    drawing.text((290, 128), "+ b", SOFT, size=13)
    return drawing


def draw_lstm() -> Drawing:
    """One step of an LSTM."""
    drawing = Drawing(780, 440, "One step of an LSTM")
    top, bottom = 80, 350
    f, i, candidate, o = (200, 260), (310, 260), (420, 260), (530, 260)
    forget, write, add, read, squash = (200, top), (420, 165), (420, top), (640, 260), (640, 165)
    drawing.line([(40, top), rim(forget, "left")], STATE)
    drawing.line([rim(forget, "right"), rim(add, "left")], STATE)
    drawing.line([rim(add, "right"), (750, top)], STATE)
    drawing.line([(40, bottom), (110, bottom)], STATE, arrow=False)
    drawing.line([(110, bottom), (530, bottom), below(o)])
    drawing.line([(110, 425), (110, bottom)], arrow=False)
    drawing.dot((110, bottom))
    for gate in (f, i, candidate):
        drawing.line([(gate[0], bottom), below(gate)])
        drawing.dot((gate[0], bottom))
    drawing.line([above(f), rim(forget, "below")], GATE)
    drawing.line([above(i), (i[0], write[1]), rim(write, "left")], GATE)
    drawing.line([above(candidate), rim(write, "below")], GATE)
    drawing.line([rim(write, "above"), rim(add, "below")], GATE)
    drawing.line([right(o), rim(read, "left")], GATE)
    drawing.dot((640, top), STATE)
    drawing.line([(640, top), above(squash)], STATE)
    drawing.line([below(squash), rim(read, "above")], STATE)
    drawing.line([rim(read, "below"), (640, bottom), (750, bottom)], STATE)
    for center, name in ((f, "σ"), (i, "σ"), (candidate, "tanh"), (o, "σ")):
        drawing.box(center, name)
    drawing.box(squash, "tanh", SOFT)
    for center, sign in ((forget, "×"), (write, "×"), (read, "×"), (add, "+")):
        drawing.circle(center, sign)
    drawing.text((60, top - 20), "c_t−1", STATE)
    drawing.text((735, top - 20), "c_t", STATE)
    drawing.text((60, bottom - 18), "h_t−1", STATE)
    drawing.text((735, bottom - 18), "h_t", STATE)
    drawing.text((132, 425), "x_t")
    for center, name in ((f, "f_t"), (i, "i_t"), (candidate, "g_t"), (o, "o_t")):
        drawing.text((center[0] + 14, center[1] - 34), name, GATE, anchor="start")
    for x, word in ((200, "forget"), (365, "write"), (640, "read")):
        drawing.text((x, 30), word, SOFT, size=14)
    return drawing


def draw_gru() -> Drawing:
    """One step of a GRU with ``reset_after=True``."""
    drawing = Drawing(780, 440, "One step of a GRU")
    top, bottom = 80, 350
    z, r, reset, candidate = (200, 260), (340, 260), (430, 260), (540, 260)
    keep, less, replace, add = (200, top), (370, 165), (540, 165), (540, top)
    drawing.line([(40, top), rim(keep, "left")], STATE)
    drawing.line([rim(keep, "right"), rim(add, "left")], STATE)
    drawing.line([rim(add, "right"), (750, top)], STATE)
    drawing.dot((90, top), STATE)
    drawing.line([(90, top), (90, bottom), (430, bottom), rim(reset, "below")], STATE)
    drawing.line([(130, 425), (130, 385), (540, 385), below(candidate)])
    for x, gate in ((190, z), (330, r)):
        drawing.line([(x, bottom), (x, below(gate)[1])], STATE)
        drawing.dot((x, bottom), STATE)
        drawing.line([(x + 20, 385), (x + 20, below(gate)[1])])
        drawing.dot((x + 20, 385))
    drawing.line([above(z), rim(keep, "below")], GATE)
    drawing.dot((200, 165), GATE)
    drawing.line([(200, 165), rim(less, "left")], GATE)
    drawing.line([rim(less, "right"), rim(replace, "left")], GATE)
    drawing.line([right(r), rim(reset, "left")], GATE)
    drawing.line([rim(reset, "right"), left(candidate)], GATE)
    drawing.line([above(candidate), rim(replace, "below")], GATE)
    drawing.line([rim(replace, "above"), rim(add, "below")], GATE)
    for center, name in ((z, "σ"), (r, "σ"), (candidate, "tanh")):
        drawing.box(center, name)
    for center, sign in ((keep, "×"), (reset, "×"), (replace, "×"), (add, "+")):
        drawing.circle(center, sign)
    drawing.circle(less, "1−")
    drawing.text((60, top - 20), "h_t−1", STATE)
    drawing.text((735, top - 20), "h_t", STATE)
    drawing.text((152, 425), "x_t")
    drawing.text((214, 226), "z_t", GATE, anchor="start")
    drawing.text((354, 226), "r_t", GATE, anchor="start")
    drawing.text((554, 226), "h̃_t", GATE, anchor="start")
    drawing.text((444, 320), "W_h h_t−1 + b′", STATE, size=13, anchor="start")
    drawing.text((200, 30), "keep", SOFT, size=14)
    drawing.text((540, 30), "replace", SOFT, size=14)
    return drawing


def draw_bidirectional() -> Drawing:
    """Four steps read in both directions."""
    drawing = Drawing(700, 400, "A sequence read in both directions")
    steps = [140 + 140 * t for t in range(4)]
    forward, backward, join = 270, 170, 85
    for t, x in enumerate(steps, 1):
        drawing.line([(x - 18, 370), (x - 18, forward + 18)])
        around = [(x - 18, 345), (x + 38, 345), (x + 38, 212), (x + 18, 212)]
        drawing.line([*around, (x + 18, backward + 18)])
        drawing.dot((x - 18, 345))
        around = [(x - 18, forward - 18), (x - 18, 228), (x - 38, 228), (x - 38, 127)]
        drawing.line([*around, (x - 18, 127), (x - 18, join + 18)], STATE)
        drawing.line([(x + 18, backward - 18), (x + 18, join + 18)], GATE)
        drawing.line([(x, join - 18), (x, 40)])
        drawing.text((x - 18, 384), f"x_{t}")
        drawing.text((x, 24), f"y_{t}")
    for x in [*steps, steps[-1] + 140]:
        drawing.line([(x - 113, forward), (x - 27, forward)], STATE, arrow=x <= steps[-1])
        drawing.line([(x - 27, backward), (x - 113, backward)], GATE, arrow=x > steps[0])
    for x in steps:
        drawing.box((x, forward), "f", STATE)
        drawing.box((x, backward), "f′", GATE)
        drawing.box((x, join), "[ ; ]", INK)
    drawing.text((30, forward - 16), "→h", STATE)
    drawing.text((670, backward - 16), "←h", GATE)
    return drawing
