import { randomInt } from "node:crypto";

const ADJECTIVES =
  "amber brave brisk calm clever cosy crisp eager fair fleet gentle happy keen kind light lively lucky mellow merry neat nimble plucky proud quick quiet rapid sharp shiny smart snug solid spry sunny swift tidy vivid warm wise witty young".split(
    " ",
  );
const NOUNS =
  "acorn badger beacon birch brook canyon cedar comet coral crane delta falcon fern finch fjord fox glade harbor hazel heron island juniper kestrel lagoon lark lynx maple marten meadow otter owl pebble pine puffin raven reef river robin sparrow spruce stone swan thistle tulip willow wren".split(
    " ",
  );

/** A readable name for an instance that was given none: `swift-otter-4821`. */
export function madeUpName(): string {
  const pick = (words: readonly string[]) => words[randomInt(words.length)]!;
  return `${pick(ADJECTIVES)}-${pick(NOUNS)}-${randomInt(1000, 10_000)}`;
}
