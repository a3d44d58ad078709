// Burns CPU in plain JavaScript and in V8's own C++ (JSON, sorting) for SECONDS of CPU time.
const seconds = Number(process.argv[2] ?? 10);
const used = () => (process.cpuUsage().user + process.cpuUsage().system) / 1e6;
let x = 1, calls = 0;
function work(rounds) {
  for (let i = 0; i < rounds; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
  }
}
const text = JSON.stringify(Array.from({ length: 20000 }, (_, i) => ({ i, name: `name ${i}` })));
while (used() < seconds) {
  work(200000);
  JSON.parse(text).sort((a, b) => b.i - a.i);
  calls++;
}
console.log(JSON.stringify({ calls, check: x & 1 }));
