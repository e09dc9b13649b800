/* Rank how-to pages first, and lists of links, comparisons and pages for developers last. */
const PAGES_BY_RANK = [
  [/^(index|more|how-to\/index|reference\/index|examples\/index)$/, 0.1],  // lists of pages
  [/^(changelog|architecture|compiler|contributing|roadmap|execution|experiments|features|friendliness)$/, 0.1],
  [/^(benchmarks|benchmark-suite|performance|accuracy|tables|paper)$/, 0.2],
  [/^how-to\//, 3],
  [/^(quickstart|faq|cli|migrate)$/, 1.5],
];

var Scorer = {
  score: ([docname, , , , score]) => {
    const found = PAGES_BY_RANK.find(([pages]) => pages.test(docname));
    return found ? score * found[1] : score;
  },
  // Sphinx's own numbers, which a scorer must repeat.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
