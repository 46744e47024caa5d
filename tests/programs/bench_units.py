"""Writes the C++ program of scripts/bench_symbols: units of template-heavy code, each with types of its own.

No unit shares an instantiation with another, so that the size grows with their number: 52 units are some 100 MB with
`-g -O2`. The known answer is another tool's: the program is named by leaktrace and by llvm-symbolizer, and never run.
"""

from __future__ import annotations

UNITS = 52

_UNIT = """\
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace unit@ {

struct Record {
  int number;
  std::string text;
  bool operator<(const Record &other) const { return number < other.number; }
};

template <class T> struct Node {
  T value;
  std::shared_ptr<Node> next;
  std::map<std::string, std::vector<T>> table;
};

struct Shape {
  virtual ~Shape() = default;
  virtual double area() const { return 0; }
};
struct Named : virtual Shape {
  std::string name = "named";
};
struct Square : Named {
  double side = @;
  double area() const override { return side * side; }
};

static void fill(Node<Record> &node, int count) {
  for (int i = 0; i < count; i++)
    node.table[std::to_string(i)].push_back(Record{i, "x"});
}

// With this name in every unit.
static int check(const std::vector<Record> &records) {
  if (records.size() > 1000)
    throw std::length_error("too many: " + records.front().text);
  return static_cast<int>(records.size());
}

int run(int count) {
  auto node = std::make_shared<Node<Record>>();
  fill(*node, count);
  std::unordered_map<int, Node<Record>> nodes;
  nodes[count] = *node;
  std::vector<Record> records;
  for (auto &entry : node->table)
    for (auto &record : entry.second)
      records.push_back(record);
  std::sort(records.begin(), records.end());
  std::stable_sort(records.begin(), records.end());
  std::function<int(int)> add = [&](int x) { return x + check(records); };
  std::unique_ptr<Shape> shape = std::make_unique<Square>();
  std::regex pattern("a+b");
  std::stringstream stream;
  stream << count << shape->area();
  std::string text;
  stream >> text;
  if (std::regex_match(text, pattern))
    std::cout << text;
  return add(count);
}

} // namespace unit@

int unit@_entry(int count) { return unit@::run(count); }
"""


def sources(units: int = UNITS) -> dict[str, str]:
    """Return file name → text of the whole program."""
    files = {f"unit{number}.cpp": _UNIT.replace("@", str(number)) for number in range(units)}
    declarations = "".join(f"int unit{number}_entry(int);\n" for number in range(units))
    calls = "".join(f"  sum += unit{number}_entry(count);\n" for number in range(units))
    files["main.cpp"] = f"{declarations}\nint main(int count, char **) {{\n  int sum = 0;\n{calls}  return sum;\n}}\n"
    return files
