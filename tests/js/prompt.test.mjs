import assert from "node:assert/strict";
import { test } from "node:test";
import { withWord } from "../../js/lib/prompt.mjs";

test("a trigger word is appended", () => {
  assert.equal(withWord("", "TOK"), "TOK");
  assert.equal(withWord("  ", "TOK"), "TOK");
  assert.equal(withWord("a fox", "TOK"), "a fox, TOK");
  assert.equal(withWord("a fox, \n", "TOK"), "a fox, TOK");
});

test("a prompt that holds it stays", () => {
  for (const prompt of ["TOK", "a fox, TOK", "TOK dog", "(TOK:1.2)", "a fox,TOK. "])
    assert.equal(withWord(prompt, "TOK"), prompt);
  const odd = "a (b) $& [c] \\ d*";
  assert.equal(withWord(withWord("a fox", odd), odd), `a fox, ${odd}`);
});

test("a part of another word is not the word", () => {
  assert.equal(withWord("category", "cat"), "category, cat");
  assert.equal(withWord("TOKÉ", "TOK"), "TOKÉ, TOK");
  assert.equal(withWord("tok", "TOK"), "tok, TOK");
});
