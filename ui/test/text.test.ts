// Numbers, times, addresses and queries as text.

import { describe, expect, it } from "vitest";
import * as format from "../src/format";
import * as selector from "../src/selector";
import { DEFAULTS, format as address, parse } from "../src/state";
import * as time from "../src/time";

describe("format", () => {
  it("never says all or nothing unless it is exactly that", () => {
    expect(format.percent(0, 100)).toBe("0 %");
    expect(format.percent(100, 100)).toBe("100 %");
    expect(format.percent(1, 3)).toBe("33.33 %");
    expect(format.percent(1, 1e6)).toBe("< 0.01 %");
    expect(format.percent(999_999, 1e6)).toBe("> 99.99 %");
    expect(format.percent(0, 0)).toBe("0 %");
  });

  it("shows durations in the unit that fits", () => {
    expect(format.duration(0)).toBe("0 s");
    expect(format.duration(0.0000021)).toBe("2.10 µs");
    expect(format.duration(0.0526)).toBe("52.6 ms");
    expect(format.duration(42)).toBe("42.0 s");
    expect(format.duration(3078)).toBe("51.3 min");
    expect(format.duration(86400)).toBe("24.0 h");
    expect(format.duration(864000)).toBe("10.0 d");
  });

  it("shows counts, sizes and cores", () => {
    expect(format.count(1234567)).toBe("1,234,567");
    expect(format.bytes(0)).toBe("0 B");
    expect(format.bytes(1536)).toBe("1.50 KiB");
    expect(format.bytes(64 * 1024 * 1024)).toBe("64.0 MiB");
    expect(format.cores(1)).toBe("1.00 core");
    expect(format.cores(12.34)).toBe("12.3 cores");
    expect(format.significant(0.01234)).toBe("0.012");
    expect(format.ago(100, 101)).toBe("now");
    expect(format.ago(100, 700)).toBe("10 min ago");
  });
});

describe("time", () => {
  it("reads what the API reads", () => {
    expect(time.resolve("now", 1000)).toBe(1000);
    expect(time.resolve("now-15m", 1000)).toBe(100);
    expect(time.resolve("1970-01-01T00:10:00Z", 0)).toBe(600);
    expect(time.resolve("12.5", 0)).toBe(12.5);
    expect(time.unix(7)).toBe(7);
    expect(time.offset("2026-01-01T00:00:00Z")).toBeNull();
    expect(time.offset("now-7d")).toBe(604800);
  });

  it("writes RFC 3339 and round steps", () => {
    expect(time.rfc3339(600)).toBe("1970-01-01T00:10:00Z");
    expect(time.rfc3339(600.25)).toBe("1970-01-01T00:10:00.250Z");
    expect(time.step(900, 180)).toBe(5);
    expect(time.step(86400, 200)).toBe(600);
    expect(time.since(42)).toBe("now-1m");
    expect(time.since(4000)).toBe("now-3h");
    expect(time.since(86400 * 9)).toBe("now-9d");
    expect(time.step(0, 200)).toBe(1);
    expect(time.step(86400 * 700, 200)).toBe(345600);
  });
});

describe("address", () => {
  it("leaves defaults out and comes back as it was", () => {
    expect(address({ ...DEFAULTS })).toBe("");
    const state = {
      ...DEFAULTS,
      query: '{process="a&b=c"}',
      group: "",
      zoom: "00ff",
      search: "x+y é",
      regex: true,
      live: false,
      nodes: 0,
      tab: "top" as const,
    };
    expect(parse(`?${address(state)}`)).toEqual(state);
  });

  it("takes defaults for what makes no sense", () => {
    const state = parse("?tab=nowhere&page=-4&nodes=many&sort=up&unknown=1&live=maybe");
    expect(state).toEqual({ ...DEFAULTS, live: false });
  });
});

describe("selector", () => {
  it("reads and writes conditions", () => {
    const list = selector.conditions('{namespace="shop", service=~"cart.*","k8s.pod.name"!=""}');
    expect(list).toEqual([
      { label: "namespace", op: "=", value: "shop" },
      { label: "service", op: "=~", value: "cart.*" },
      { label: "k8s.pod.name", op: "!=", value: "" },
    ]);
    expect(selector.write(list!)).toBe('{namespace="shop", service=~"cart.*", "k8s.pod.name"!=""}');
    expect(selector.conditions("{process=")).toBeNull();
    expect(selector.conditions("")).toEqual([]);
  });

  it("keeps quotes and backslashes", () => {
    const text = selector.write([{ label: "process", op: "=", value: 'a"b\\c' }]);
    expect(text).toBe('{process="a\\"b\\\\c"}');
    expect(selector.conditions(text)![0]!.value).toBe('a"b\\c');
  });

  it("puts braces where they are missing", () => {
    expect(selector.normalise(' process="a" ')).toBe('{process="a"}');
    expect(selector.normalise("{}")).toBe("");
    expect(selector.normalise('{a="b",}')).toBe('{a="b"}');
  });

  it("narrows: one value of a label, several exclusions", () => {
    expect(selector.narrow('{process="a", pid="1"}', "process", "b")).toBe('{pid="1", process="b"}');
    const once = selector.narrow("", "process", "a", "!=");
    expect(selector.narrow(once, "process", "b", "!=")).toBe('{process!="a", process!="b"}');
  });

  it("knows what is being typed", () => {
    expect(selector.typing("", 0)).toMatchObject({ what: "label", prefix: "", others: "" });
    expect(selector.typing("{pro", 4)).toMatchObject({ what: "label", prefix: "pro", start: 1, end: 4 });
    const value = '{node="a", process="en';
    expect(selector.typing(value, value.length)).toMatchObject({
      what: "value",
      label: "process",
      prefix: "en",
      others: '{node="a"}',
      start: value.indexOf('"en'),
    });
    expect(selector.typing('{process="envoy"}', 12)).toMatchObject({ what: "value", prefix: "en", end: 16 });
    expect(selector.typing('{process="envoy"', 16)).toBeNull();
  });
});
