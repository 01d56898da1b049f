"""The rows for a person: what was reached, what was not, in plain columns."""
import textwrap

WIDTH = 118


def number(value, unit):
    if value is None:
        return "-"
    if unit == "s" and value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def ratio(row):
    if row["ratio"] is None:
        return "-"
    if row["peer"] is None:
        return number(row["ratio"], row["unit"])
    return f"{row['ratio']:.2f}x"


def goal(row):
    sign = ">=" if row["better"] == "higher" else "<="
    return f"{sign} {row['goal']:g}" + ("x" if row["peer"] is not None or row["ratio"] is None else f" {row['unit']}")


def verdict(row):
    if row["ratio"] is None:
        return "PYTORCH CANNOT" if row["out_of_memory"] == ["peer"] else "NOT MEASURED"
    return "reached" if row["met"] else "MISSED"


def cells(row):
    ours, peer = ("out of memory" if side in row["out_of_memory"] else number(row[side], row["unit"]) for side in ("ours", "peer"))
    return (row["column"], f"{ours} ({row['ours_variant']})" if row["ours_variant"] else ours,
            f"{peer} ({row['peer_variant']})" if row["peer_variant"] else peer, ratio(row), goal(row), verdict(row))


def print_table(rows, machine, failures):
    titles = ("column", "ours", "PyTorch or other", "ratio", "goal", "")
    table = [cells(row) for row in rows]
    wide = [max(len(line[i]) for line in [titles, *table]) for i in range(len(titles))]
    print(f"\n{machine}\n")
    line = lambda values: "  ".join(v.ljust(w) if i in (0, 1, 2) else v.rjust(w) for i, (v, w) in enumerate(zip(values, wide)))
    print("  " + line(titles))
    last = None
    for row, values in zip(rows, table):
        if row["row"] != last:
            print(f"\n{row['row']}: {row['work']}")
            last = row["row"]
        print("  " + line(values))
        if row["note"]:
            print(textwrap.fill(row["note"], WIDTH, initial_indent="      ", subsequent_indent="      "))
    for name, words in failures:
        print(f"\n{name}: COULD NOT BE RUN\n" + textwrap.indent(words, "      "))
    missed = [row["name"] for row in rows if verdict(row) in ("MISSED", "NOT MEASURED")]
    if missed:
        print("\nNot reached: " + ", ".join(missed))


def print_list(rows):
    print(f"{'row':<24}{'fp32':>8}{'best':>8}{'minutes':>9}  work")
    print("(finding PyTorch's fastest variant comes on top, once: at most 20 minutes for the UNet, as many for the demo)")
    for name, row in rows.items():
        print(f"{name:<24}" + "".join(f"{g:>8g}" if g else f"{'':>8}" for g in row.goals) + f"{row.minutes:>9g}  {row.work}")
