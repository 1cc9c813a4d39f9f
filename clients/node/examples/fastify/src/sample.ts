// `npm run --silent sample -- NAME COUNT`: prints the body of a request for a screening of so many items.

const [name = "sample", count = "20"] = process.argv.slice(2);
const subjects = ["adults with asthma", "children with asthma", "rats with asthma", "a registry of cough"];

const items = Array.from({ length: Number(count) }, (_, place) => ({
  title: `Study ${place + 1} of ${subjects[place % subjects.length]}`,
  abstract: `What was seen in ${100 + place} of them.`,
}));
console.log(JSON.stringify({ name, criteria: { include: ["asthma"], exclude: ["rats"] }, items }));
