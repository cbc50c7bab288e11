"""Decodes blocks of the codec mix, written from docs/mix.md alone (numbers in the comments are its sections).

Plain and slow: a millisecond or more for each bit.
"""

import pathlib
import re

import numpy as np

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "mix.md"
LIMIT = 3071
REFERENCES = 6


def listed(name):
    """A list of numbers of the document."""
    text = DOCUMENT.read_text()
    block = re.search(rf"^{name} =\s*([-\d,\s]+)$", text, re.MULTILINE).group(1)
    return np.array([int(number) for number in block.replace(",", " ").split()], np.int64)


def clamp(value, low, high):
    return max(low, min(high, value))


# 2. Numbers.


def tables():
    knots, squash = listed("KNOTS"), {}
    for odds in range(-LIMIT, LIMIT + 1):
        knot, part = divmod(abs(odds), 64)
        p = int(knots[knot] * (64 - part) + knots[knot + 1] * part) // 64
        squash[odds] = 65536 - p if odds < 0 else p
    stretch, odds = [], -LIMIT
    for p in range(65536):
        while odds < LIMIT and squash[odds] < p:
            odds += 1
        stretch.append(odds)
    return squash, stretch


SQUASH, STRETCH = tables()


def squash(odds):
    return SQUASH[clamp(odds, -LIMIT, LIMIT)]


def log2(n):
    n = max(n, 1)
    whole = n.bit_length() - 1
    return (whole << 8) + ((n << 8 >> whole) & 255)


def log_odds(yes, no, prior_yes, prior_no):
    yes, no = (min(yes, 1 << 22) << 8) + prior_yes, (min(no, 1 << 22) << 8) + prior_no
    return clamp((log2(yes) - log2(no)) * 177 >> 8, -LIMIT, LIMIT)


def hash32(a, b):
    return (((a * 0x2545F491 ^ b) & 0xFFFFFFFF) * 0x9E3779B1 & 0xFFFFFFFF) ^ (a >> 3)


def toward_zero(a, b):
    return a // b if a >= 0 else -(-a // b)


class Reader:
    """3. Bits."""

    def __init__(self, data):
        self.data, self.at = data, 4
        self.low, self.high = 0, 0xFFFFFFFF
        self.number = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def bit(self, p):
        split = self.low + ((self.high - self.low) * p >> 16)
        bit = self.number <= split
        if bit:
            self.high = split
        else:
            self.low = split + 1
        while (self.low ^ self.high) >> 24 == 0:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 0xFF
            self.number = self.number << 8 & 0xFFFFFFFF | byte
        return int(bit)


class Predictor:
    """4. Prediction."""

    def __init__(self, prior, contexts, table_bits, limit, sets, selections, rate, refiners):
        self.contexts, self.bits, self.limit, self.rate = contexts, table_bits, limit, rate
        self.counters = [dict() for _ in range(contexts)]
        self.prior = listed(prior)
        self.weights = [np.tile(self.prior, (count, 1)) for count in sets]
        self.last = np.full((selections, 3), 65536 // 3, np.int64)
        points = np.array([squash((point - 12) * 256) for point in range(25)], np.int64)
        self.refiners = [np.tile(points, (count, 1)) for count in refiners]
        self.seen = 0

    def code(self, reader, contexts, features, sets, selection, refine):
        assert len(contexts) == self.contexts
        # 4.1 Counters.
        mask, inputs, slots = (1 << self.bits) - 1, [], []
        for table, context in zip(self.counters, contexts):
            slot = (context ^ (context >> self.bits) * 0x2545F491) & mask
            p, seen = table.get(slot, (1 << 21, 0))
            slots.append((table, slot, p, seen))
            if seen == 0:
                inputs += [0, 0]
            else:
                trust = 256 * min(seen, 31) // (min(seen, 31) + 2)
                inputs += [STRETCH[p >> 6], ((p >> 6) - 32768 >> 5) * trust >> 8]
        # 4.2 Mixer.
        inputs += [clamp(feature, -2047, 2047) for feature in features]
        inputs = np.array(inputs, np.int64)
        rows = [weights[chosen] for weights, chosen in zip(self.weights, sets)]
        sums = [clamp(int((row * inputs >> 8).sum()) >> 8, -LIMIT, LIMIT) for row in rows]
        last = self.last[selection]
        odds = clamp(sum(total * (int(weight) >> 2) >> 14 for total, weight in zip(sums, last)), -LIMIT, LIMIT)
        mixed = squash(odds)
        # 4.3 Refiners.
        point, part = divmod(odds + LIMIT + 1, 256)
        refined = [rows[context] for rows, context in zip(self.refiners, refine)]
        parts = [int(row[point] * (256 - part) + row[point + 1] * part) // 256 for row in refined]
        p = (mixed * len(parts) + sum(parts)) // (2 * len(parts))
        bit = reader.bit(clamp(p, 1, 65535))
        # 4.4 Learning.
        target = bit << 16
        for i, total in enumerate(sums):
            step = ((target - mixed >> 2) * (total >> 2)) >> 15
            last[i] = clamp(int(last[i]) + step, -65536, 3 * 65536)
        self.seen = min(self.seen + 1, 1 << 24)
        rate = self.rate + min(64 * self.rate // (self.seen // 16 + 16), 3 * self.rate)
        for row, total in zip(rows, sums):
            error = (target - squash(total)) * rate >> 10
            row[:] = np.clip(row + (error * inputs + 4096 >> 13), -4 * 65536, 4 * 65536)
        for table, slot, p, seen in slots:
            goal = (1 << 22) - 1 if bit else 0
            moved = p + ((goal - p >> 7) * (655360 // (10 * seen + 16)) >> 9)
            table[slot] = moved, min(seen + 1, self.limit)
        for row in refined:
            nearer = point + (2 * part >= 256)
            row[nearer] += ((65535 if bit else 0) - int(row[nearer])) >> 6
        return bit


class Tally:
    """5.1 Counts of cells."""

    def __init__(self):
        self.stored = self.sum = self.balance = 0

    def add(self, level):
        self.stored += 1
        self.sum = min(self.sum + abs(level), 0xFFFFFFFF)
        self.balance += (level > 0) - (level < 0)


def scaled(count):
    return 16 * min(count, 1 << 27)


def distance_class(distance, cells):
    ratio = distance * 8 // (cells + 1)
    if ratio == 0:
        return 0
    whole = ratio.bit_length() - 1
    return min(2 * whole + (ratio >> max(whole - 1, 0) & (ratio > 1)), 13)


class Block:
    """The cells of a block as levels, `lines` x `places`."""

    def __init__(self, data, lines, places, period, has_zero, below, above):
        self.reader = Reader(data)
        self.lines, self.places, self.period = lines, places, period
        self.has_zero, self.below, self.above = has_zero, below, above
        root = int(period**0.5 + 0.5)
        self.kernel_row = root if period > 1 and root * root == period else 2
        bits = clamp((lines * places).bit_length() - 1 + 2, 10, 16)
        self.zero = Predictor("ZERO", 21, bits, 250, (81, 96, 64), 2, 18, (1024, 4096))
        self.sign = Predictor("SIGN", 9, bits, 1000, (27, 9, 9), 1, 45, (729,))
        self.magnitude = Predictor("MAGNITUDE", 14, bits, 1000, (16, 64, 1024), 1, 45, (4096,))
        self.levels = np.zeros((lines, places), np.int64)
        self.cut = np.zeros((lines, places), np.int64)
        self.of_places = [Tally() for _ in range(places)]
        self.of_channels = [Tally() for _ in range(-(-places // period))]
        self.of_positions = [Tally() for _ in range(period)]
        self.overall, self.cells = Tally(), 0
        self.density, self.mean, self.two_cells = 0, 0, 32
        self.place_references = [NO_REFERENCES] * places
        self.next_search = 16

    def decode(self):
        if self.below + self.above > 0:
            for line in range(self.lines):
                self.decode_line(line)
        return self.levels

    # 5.2 References.

    def search(self, vectors, vector, first, known, stored):
        """`vectors`: one a row. Those in `first..vector` are candidates."""
        candidates = vectors[first:vector, :known]
        own = vectors[vector, :known]
        planes = lambda x: ((x > 0), (x < 0), (abs(x) >= 2))
        distances = sum((a != b).sum(axis=-1) for a, b in zip(planes(candidates), planes(own)))
        order = sorted(range(len(candidates)), key=lambda i: (int(distances[i]), -i))[:REFERENCES]
        chosen = [first + i for i in order]
        if not chosen:
            return NO_REFERENCES
        rows = [vectors[i, :known] for i in chosen]
        products = [[int(a @ b) for b in rows] for a in rows]
        targets = [int(a @ own) << 12 for a in rows]
        weights = [0] * len(rows)
        for _ in range(12):
            for i in range(len(rows)):
                others = sum(products[i][j] * weights[j] for j in range(len(rows)) if j != i)
                weights[i] = clamp((targets[i] - others) // (products[i][i] + 10), -16384, 16384)
        return chosen, weights, distance_class(int(distances[order[0]]), stored)

    def first_candidate(self, vector, vectors):
        return max(0, vector - clamp((1 << 24) // vectors, 256, 4096))

    def search_places(self, line):
        for place in range(1, self.places):
            stored = self.of_places[place].stored
            first = self.first_candidate(place, self.places)
            self.place_references[place] = (
                self.search(self.cut.T, place, first, line, stored) if stored else NO_REFERENCES
            )

    def decode_line(self, line):
        if line == self.next_search:
            self.search_places(line)
            self.next_search = line + max(line // 2 & ~7, 16)
        self.line, self.of_line, self.kernel = line, Tally(), Tally()
        self.references = [line - 1 - i for i in range(min(line, REFERENCES))], [0] * REFERENCES, 15
        next_search = 64
        for place in range(self.places):
            if place == next_search and line > 0:
                if self.of_line.stored:
                    first = self.first_candidate(line, self.lines)
                    self.references = self.search(self.cut, line, first, place, self.of_line.stored)
                next_search = place + max(place // 2 & ~63, 64)
            if place % self.period == 0:
                self.kernel = Tally()
            self.note(place, self.decode_level(Around(self, place)))

    def note(self, place, level):
        self.cells += 1
        self.levels[self.line, place] = level
        if level:
            level = clamp(level, -127, 127)
            self.cut[self.line, place] = level
            channel, position = divmod(place, self.period)
            for tally in (self.overall, self.of_line, self.kernel, self.of_places[place], self.of_channels[channel],
                          self.of_positions[position]):  # fmt: skip
                tally.add(level)
            self.mean = log2(scaled(self.overall.sum) + 16) - log2(scaled(self.overall.stored) + 16)
            self.two_cells = 32 * (self.overall.sum + 1) // (self.overall.stored + 1)
        self.density = log_odds(self.overall.stored, self.cells - self.overall.stored, 8, 8)

    def mean_of(self, tally):
        """Of a tally: the logarithm of the mean magnitude above that of all."""
        return log2(min(scaled(tally.sum) + self.two_cells, 0xFFFFFFFF)) - log2(scaled(tally.stored) + 32) - self.mean

    # 6. A cell.

    def decode_level(self, around):
        if self.has_zero and not self.zero.code(self.reader, *around.of_zero()):
            return 0
        negative = self.above == 0
        if self.below and self.above:
            negative = bool(self.sign.code(self.reader, *around.of_sign()))
        magnitude = 1 + self.decode_magnitude(around, negative)
        return -magnitude if negative else magnitude

    def decode_magnitude(self, around, negative):
        levels = self.below if negative else self.above
        bits = (levels - 1).bit_length()
        prefix = 1
        for bit in range(bits):
            below = bits - 1 - bit
            so_far = (prefix << below + 1) - (1 << bits)
            if so_far + (1 << below) >= levels:
                prefix <<= 1
                continue
            query = around.of_magnitude(prefix, prefix << 1 | negative, bit)
            prefix = prefix << 1 | self.magnitude.code(self.reader, *query)
        return prefix - (1 << bits)


NO_REFERENCES = [], [], 15


def flag(level):
    return int(level != 0)


def flags(levels):
    return sum(flag(level) << i for i, level in enumerate(levels))


def thirds(levels):
    return sum((1 if level > 0 else 2 if level < 0 else 0) * 3**i for i, level in enumerate(levels))


def signed_class(level):
    size = abs(level)
    octave = size.bit_length() - 1
    cls = size if size < 8 else 3 * octave - 1 + (size >> octave - 1 & 1)
    return min(cls, 31) << 1 | (level < 0)


def mean_class(mean):
    return clamp(toward_zero(mean, 48) + 16, 0, 31)


def forecast_class(forecast):
    size = abs(forecast)
    octave = size.bit_length() - 1
    cls = size // 2 if size < 32 else min(4 * octave + (size >> octave - 2 & 3), 35) - 4
    return cls << 1 | (forecast < 0)


def forecast_level(forecast):
    return clamp(forecast + 4 >> 3, -64, 63) & 127


def forecast_size(forecast):
    return sum(abs(forecast) >= start for start in (2, 5, 8, 12, 16, 24, 40))


class Around:
    """5.3 What is known around a cell."""

    def __init__(self, block, place):
        self.block, self.place, self.line = block, place, block.line
        cut, line, period = block.cut, block.line, block.period
        left = lambda back: int(cut[line, place - back]) if back <= place else 0
        above = lambda back, at: int(cut[line - back, at]) if back <= line and 0 <= at < block.places else 0
        self.left = [left(1), left(2), left(3)]
        self.above = [above(1, place), above(2, place), above(3, place)]
        self.above_left, self.above_right = above(1, place - 1), above(1, place + 1)
        self.kernel_above = left(block.kernel_row)
        if period == 1:
            self.channel_before = [left(4), left(5), above(4, place)]
        else:
            self.channel_before = [left(period), left(2 * period), above(1, place - period)]
        lines, line_weights, line_distance = block.references
        places, place_weights, place_distance = block.place_references[place]
        pad = lambda found: found + [0] * (REFERENCES - len(found))
        self.lines = pad([int(cut[other, place]) for other in lines])
        self.places = pad([int(cut[line, other]) for other in places])
        crossing = lambda i, j: int(cut[lines[i], places[j]]) if i < len(lines) and j < len(places) else 0
        self.crossings = [crossing(0, 0), crossing(0, 1), crossing(1, 0)]
        self.distances = line_distance, place_distance
        self.line_forecast = sum(w * x for w, x in zip(line_weights, self.lines)) >> 8
        self.place_forecast = sum(w * x for w, x in zip(place_weights, self.places)) >> 8
        self.both = toward_zero(self.line_forecast + self.place_forecast, 2)
        channel, position = divmod(place, period)
        self.position = position
        at_place, at_channel = block.of_places[place], block.of_channels[channel]
        prior = squash(block.density)

        def odds(stored, cells, weight):
            yes = max(prior * weight >> 8, 1)
            return log_odds(stored, cells - stored, yes, max(256 * weight - yes, 1))

        self.line_density = odds(block.of_line.stored, place, 12)
        self.place_density = odds(at_place.stored, line, 8)
        self.line_mean, self.place_mean = block.mean_of(block.of_line), block.mean_of(at_place)
        self.kernel_density = self.channel_density = self.position_density = block.density
        self.kernel_mean = self.channel_mean = 0
        if period > 1:
            self.kernel_density = odds(block.kernel.stored, position, 4)
            self.channel_density = odds(at_channel.stored, line * period + position, 16)
            cells = line * (block.places // period) + channel
            self.position_density = odds(block.of_positions[position].stored, cells, 32)
            self.kernel_mean, self.channel_mean = block.mean_of(block.kernel), block.mean_of(at_channel)
        self.expected = clamp(self.line_density + self.place_density - block.density, -LIMIT, LIMIT)

    def relative(self, level):
        return clamp(256 + toward_zero(log2(abs(level)) - self.block.mean, 2), 64, 1023) if level else 0

    def class_of_sum(self, total):
        return clamp(toward_zero(log2(total) - self.block.mean + 1024, 96) + 1, 1, 31) if total else 0

    # 6.1 Zeros.

    def of_zero(self):
        left, above, lines, places = self.left, self.above, self.lines, self.places
        by_line, by_place, by_both = [
            (odds + LIMIT) // 192 for odds in (self.line_density, self.place_density, self.expected)
        ]
        stored_lines, stored_places = flags(lines), flags(places)
        line_count, place_count = stored_lines.bit_count(), stored_places.bit_count()
        corner, corners = flag(self.crossings[0]), flags(self.crossings)
        line_distance, place_distance = self.distances
        near = [left[0], above[0], left[1], above[1], self.above_left, self.above_right, left[2], above[2]]
        near_stored = flags(near).bit_count()
        near_sum = sum(abs(level) // (1 if i < 2 else 2) for i, level in enumerate(near))
        first = flag(lines[0]) | flag(places[0]) << 1
        before, before_2, before_above = map(flag, self.channel_before)
        kernel, kernel_above, position = self.block.kernel, flag(self.kernel_above), self.position
        line_class, place_class = forecast_class(self.line_forecast) >> 1, forecast_class(self.place_forecast) >> 1
        contexts = [
            by_line << 6 | by_place,
            by_both,
            stored_places << 4 | place_distance,
            stored_lines << 4 | line_distance,
            (stored_lines & 15) << 4 | stored_places & 15 | by_both // 2 << 8,
            first | corners << 2 | flag(lines[1]) << 5 | flag(places[1]) << 6 | place_distance // 2 << 7
            | line_distance // 2 << 10,
            place_count << 8 | line_count << 4 | corner,
            signed_class(left[0]) << 6 | signed_class(above[0]),
            near_stored << 6 | by_line,
            near_stored << 6 | by_place,
            before | before_2 << 1 | before_above << 2 | flag(left[0]) << 3 | flag(above[0]) << 4 | kernel_above << 5
            | position << 6,
            by_line << 12 | mean_class(self.line_mean) << 6 | by_place // 2,
            by_place << 12 | mean_class(self.place_mean) << 6 | by_line // 2,
            self.class_of_sum(near_sum) << 6 | by_both,
            hash32(self.place, first),
            hash32(self.line, first),
            min(kernel.stored, 7) << 12 | position << 2 | flag(left[0]) | kernel_above << 1,
            self.class_of_sum(kernel.sum) << 6 | by_both,
            line_class << 8 | place_class,
            forecast_class(self.both) << 6 | by_both,
            line_class << 8 | first | corner << 2 | forecast_class(self.place_forecast) >> 3 << 3,
        ]  # fmt: skip
        features = [
            256, self.expected, self.line_density, self.place_density, self.kernel_density, self.channel_density,
            self.position_density, self.relative(left[0]), self.relative(self.kernel_above), self.relative(above[0]),
            self.relative(self.channel_before[0]), 64 * (line_count + place_count), 8 * abs(self.line_forecast),
            8 * abs(self.place_forecast), 8 * abs(self.both),
        ]  # fmt: skip
        third = lambda count: (count > 2) + (count > 4)
        by_references = (
            (stored_lines & 3).bit_count() + 3 * (stored_places & 3).bit_count() + 9 * third(line_count)
            + 27 * third(place_count)
        )  # fmt: skip
        age = (self.line >= 16) + (self.line >= 64)
        sizes = 8 * forecast_size(self.line_forecast) + forecast_size(self.place_forecast)
        sets = by_references, min(by_both, 31) + 32 * age, sizes
        refine = min(by_both, 31) << 5 | first | corner << 2, stored_lines << 6 | stored_places
        return contexts, features, sets, flag(lines[0]), refine

    # 6.2 Signs.

    def of_sign(self):
        left, above, lines, places = self.left, self.above, self.lines, self.places
        of_line, of_place = self.block.of_line, self.block.of_places[self.place]
        balance, corner = self.block.kernel.balance, self.crossings[0]
        references = thirds(lines[:3] + places[:3])
        contexts = [
            0,
            (clamp(of_place.balance, -8, 8) + 8) * 17 + clamp(of_line.balance, -8, 8) + 8,
            self.place,
            self.line,
            references,
            thirds([left[0], self.kernel_above, above[0], self.channel_before[0]]) + 81 * (clamp(balance, -3, 3) + 3),
            thirds([left[0], left[1], above[0], above[1], self.above_left, self.above_right]),
            self.position << 6 | signed_class(left[0]),
            forecast_level(self.line_forecast) << 7 | forecast_level(self.place_forecast),
        ]
        sign = lambda level: (level > 0) - (level < 0)
        most = 1 << 20
        tilt = lambda tally: toward_zero(-512 * clamp(tally.balance, -most, most), min(tally.stored, most) + 4)
        features = [
            256, -256 * sign(left[0]), -256 * sign(self.kernel_above), -256 * sign(above[0]), -256 * sign(lines[0]),
            -256 * sign(places[0]), -256 * sign(lines[0]) * sign(places[0]) * sign(corner), tilt(of_place), tilt(of_line),
            -128 * balance, -8 * self.line_forecast, -8 * self.place_forecast,
        ]  # fmt: skip
        sets = (
            thirds([lines[0], places[0], corner]),
            thirds([left[0], self.kernel_above]),
            thirds([lines[1], places[1]]),
        )
        return contexts, features, sets, 0, (references,)

    # 6.3 Magnitudes.

    def of_magnitude(self, prefix, node, bit):
        left, above, lines, places = self.left, self.above, self.lines, self.places
        pair = lambda a, b: (a + 512) * 1031 + b + 512
        line_class, place_class = mean_class(self.line_mean), mean_class(self.place_mean)
        thirds_of = lambda forecast: forecast_level(toward_zero(2 * forecast, 3))
        of_cell = [
            signed_class(left[0]) << 6 | signed_class(above[0]),
            mean_class(self.kernel_mean) << 6 | mean_class(self.channel_mean),
            0,
            line_class << 6 | place_class,
            place_class << 3 | 1,
            pair(lines[0], places[0]),
            pair(places[0], places[1]),
            pair(lines[0], lines[1]),
            self.place,
            self.line,
            self.position << 8 | signed_class(left[0]),
            thirds_of(self.line_forecast) << 7 | thirds_of(self.place_forecast),
            forecast_level(self.both),
            forecast_level(self.both) << 9 ^ pair(lines[0], places[0]),
        ]
        contexts = [hash32(prefix if i < 2 else node, context) for i, context in enumerate(of_cell)]
        features = [
            256, 2 * self.line_mean, 2 * self.place_mean, 2 * self.kernel_mean, 2 * self.channel_mean,
            self.relative(lines[0]), self.relative(places[0]), self.relative(left[0]),
            self.expected - self.block.density, 4 * abs(self.line_forecast), 4 * abs(self.place_forecast),
        ]  # fmt: skip
        near = flag(lines[0]) | flag(places[0]) << 1 | flag(left[0]) << 2
        sets = bit, 8 * near + min(bit, 7), node if node < 1024 else 0
        return contexts, features, sets, 0, (node & 4095,)
