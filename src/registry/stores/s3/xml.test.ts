import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readErrorAnswer, readListAnswer } from "./xml.ts";

const page = (inside: string) =>
  `<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${inside}</ListBucketResult>`;
const object = (key: string, size = "5") =>
  `<Contents><Key>${key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>${size}</Size></Contents>`;

describe("S3's answers", () => {
  test("a page of a list", () => {
    const text = page(`<Name>b</Name><KeyCount>2</KeyCount>${object("a/1")}\n${object("a/&lt;&#x41;&#66;&amp;amp;")}
      <IsTruncated>true</IsTruncated><NextContinuationToken>to&quot;ken</NextContinuationToken>`);
    assert.deepEqual(readListAnswer(text), {
      objects: [
        { key: "a/1", size: 5, modifiedMs: Date.UTC(2026, 0, 2, 3, 4, 5) },
        { key: "a/<AB&amp;", size: 5, modifiedMs: Date.UTC(2026, 0, 2, 3, 4, 5) },
      ],
      nextToken: 'to"ken',
    });
  });

  test("the last page, and an empty one", () => {
    assert.deepEqual(readListAnswer(page("<IsTruncated>false</IsTruncated>")), { objects: [], nextToken: undefined });
    assert.deepEqual(readListAnswer(page("")), { objects: [], nextToken: undefined });
  });

  test("what is no list is none", () => {
    for (const text of [
      "",
      "<html></html>",
      "<ListBucketResult>",
      "<ListBucketResultX></ListBucketResultX>",
      page(object("a", "-1")),
      page(object("a", "1e400")),
      page(object("a", "9007199254740993")),
      page("<Contents><Key>a</Key><Size>1</Size></Contents>"),
      page("<IsTruncated>true</IsTruncated>"),
    ]) {
      assert.equal(readListAnswer(text), undefined, text);
    }
  });

  // Each of these would take hours if any of it were read over and over again.
  test("a hostile page of 8 MiB is none, too", () => {
    for (const piece of ["<Contents>", "<Contents<Contents", "<Contents ", "<Contents><Key", "<ContentsX>"]) {
      readListAnswer(page(piece.repeat(800_000)));
    }
  });

  test("an error's code and message", () => {
    const text = `<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>not &quot;there&quot;</Message></Error>`;
    assert.deepEqual(readErrorAnswer(text), { code: "NoSuchKey", message: 'not "there"' });
    for (const other of ["", "<html>502</html>", "{}", "<Error>"]) {
      assert.deepEqual(readErrorAnswer(other), { code: "", message: "" });
    }
  });
});
