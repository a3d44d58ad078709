// Burns CPU in plain JavaScript and in V8's own C++ (JSON, sorting) for SECONDS.
const seconds = Number(process.argv[2] ?? 10);
const start = process.hrtime.bigint();
let x = 1, calls = 0;
function work(rounds) {
  for (let i = 0; i < rounds; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
  }
}
const text = JSON.stringify(Array.from({ length: 20000 }, (_, i) => ({ i, name: `name ${i}` })));
while (Number(process.hrtime.bigint() - start) < seconds * 1e9) {
  work(200000);
  JSON.parse(text).sort((a, b) => b.i - a.i);
  calls++;
}
console.log(JSON.stringify({ calls, check: x & 1 }));
