"""Tests of the covering array: python3 -m unittest discover -s tests/equality"""

import doctest
import unittest

import pairwise


def world(row):
    return row.get("tp", 1) * row.get("replicas", 1)


AXES = {
    "model": ["gqa", "mqa", "bias", "tied", "ffn"],
    "tp": [1, 2, 3, 4, 5, 8],
    "threads": [1, 2],
    "replicas": [1, 2],
    "chunk": [7, 33, 512],
}


class CoveringRows(unittest.TestCase):
    def covered(self, rows):
        return {pair for row in rows for pair in pairwise.pairs_of(row)}

    def test_every_pair_of_levels_occurs(self):
        rows = pairwise.covering_rows(AXES)
        self.assertEqual(self.covered(rows), set(pairwise.all_pairs(AXES)))

    def test_no_row_can_be_had_for_less_than_the_two_longest_axes(self):
        """30 rows are needed for model x tp; a greedy search stays close to that."""
        rows = pairwise.covering_rows(AXES)
        self.assertGreaterEqual(len(rows), 5 * 6)
        self.assertLessEqual(len(rows), 36)
        self.assertEqual(len(list(pairwise.all_rows(AXES))), 5 * 6 * 2 * 2 * 3)

    def test_rows_name_every_axis_in_order(self):
        for row in pairwise.covering_rows(AXES):
            self.assertEqual(list(row), list(AXES))

    def test_it_is_the_same_every_time(self):
        self.assertEqual(pairwise.covering_rows(AXES), pairwise.covering_rows(AXES))

    def test_a_constraint_holds_in_every_row_and_costs_no_other_pair(self):
        def fits(row):
            return world(row) <= 8

        rows = pairwise.covering_rows(AXES, fits)
        self.assertTrue(all(world(row) <= 8 for row in rows))
        allowed = {pair for pair in pairwise.all_pairs(AXES)
                   if not ({pair[0], pair[2]} == {"tp", "replicas"} and pair[1] * pair[3] > 8)}
        self.assertEqual(self.covered(rows), allowed)
        self.assertNotIn(("tp", 5, "replicas", 2), self.covered(rows))

    def test_a_constraint_over_three_axes_is_worked_around(self):
        """a=1 with b=1 leaves only c=2: the search must step back from the c that it tried first."""
        axes = {"a": [1, 2], "b": [1, 2], "c": [1, 2]}

        def odd_one_out(row):
            return not (row.get("a") == 1 and row.get("b") == 1 and row.get("c") == 1)

        rows = pairwise.covering_rows(axes, odd_one_out)
        self.assertTrue(all(odd_one_out(row) for row in rows))
        self.assertEqual(self.covered(rows), set(pairwise.all_pairs(axes)))

    def test_a_pair_that_no_row_can_hold_is_an_error(self):
        """Each pair alone passes, but a=1 goes with neither c: `allowed` should have said so."""
        axes = {"a": [1, 2], "b": [1, 2], "c": [1, 2]}

        def whole_rows_only(row):
            return len(row) < 3 or row["a"] != 1

        with self.assertRaisesRegex(ValueError, "a=1 with b=1"):
            pairwise.covering_rows(axes, whole_rows_only)


class AllRows(unittest.TestCase):
    def test_the_last_axis_varies_fastest_and_constraints_hold(self):
        rows = pairwise.all_rows({"tp": [4, 8], "replicas": [1, 2]}, lambda row: world(row) <= 8)
        self.assertEqual(list(rows), [{"tp": 4, "replicas": 1}, {"tp": 4, "replicas": 2},
                                      {"tp": 8, "replicas": 1}])


def load_tests(loader, tests, pattern):
    tests.addTests(doctest.DocTestSuite(pairwise))
    return tests


if __name__ == "__main__":
    unittest.main()
