"""Preparation step by step, on real stations: `python recipes/preparation.py DATA [--pictures DIR]`. Takes about 15 seconds.

Data   ismn/ISMN_DWD_SMOSMANIA_20240825_20250825.zip under DATA: see ismn.yaml.
Prints what each step does, and how many rows are left after it; --pictures writes those of docs/preparation.md.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import smgeo
from smgeo.report.results import count_station_rows

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data", type=Path)
parser.add_argument("--pictures", type=Path)
args = parser.parse_args()

FEATURES = ["soil_temperature", "sand", "silt", "clay", "elevation", "doy_sin", "doy_cos"]
LENGTH = 30  # days

# Stations: (station, time), daily. Rain is read to show what becomes of a feature that hardly any station has.
stations = smgeo.open_stations(
    args.data / "ismn" / "ISMN_DWD_SMOSMANIA_20240825_20250825.zip",
    depth_m=(0.0, 0.10),
    variables=["soil_temperature", "precipitation", "sand", "silt", "clay", "elevation"],
).load()
steps = count_station_rows(stations, "sm")["steps"]
print("The archive", pd.DataFrame(steps).to_string(index=False), sep="\n")
print("not used:", stations.attrs["left_out"])

# Derived features come first, because they are made of observations.
cube = stations.smgeo.derive_features(FEATURES)[[*FEATURES, "sm"]]
print("\nDerived:", smgeo.prepare.steps_of(cube)[-1]["features"])

# The split is next: all that follows learns from training stations alone.
split = cube.smgeo.split_stations((0.7, 0.15, 0.15), seed=0)
print("\nSplit")
for part, ids in split.parts().items():
    print(f"{part}: {', '.join(ids)}")
print("Sent to training, because they hold an extreme value:")
print(pd.Series({station: ", ".join(held) for station, held in split.forced.items()}).to_string())

# Gaps. These stations report daily, so half of their revisit is less than a day, and nothing would be filled.
daily = cube.smgeo.fill_gaps("half-revisit", revisit="measured", mask=True)
filled = cube.smgeo.fill_gaps(3, mask=True)
# The same stations as a satellite would see them: every 6 days, and three overpasses under clouds.
day = np.arange(cube.sizes["time"])
overpass = (day % 6 == 0) & ~np.isin(day, [216, 222, 228])
thinned = cube.assign(soil_temperature=cube["soil_temperature"].where(overpass))
both_ways = thinned.smgeo.fill_gaps("half-revisit", revisit="measured", mask=True)
causal = thinned.smgeo.fill_gaps("half-revisit", revisit="measured", causal=True, mask=True)
ways = {"half-revisit": daily, "3 days": filled, "thinned, half-revisit": both_ways, "thinned, causal": causal}
print("\nDays of soil temperature filled:", {w: int(c["soil_temperature_filled"].sum()) for w, c in ways.items()})

# Outliers: limits come from training stations, and rows of these alone are dropped.
learned = smgeo.Scaler("standard").fit(filled.sel(station=list(split.train)))
limits = {n: (c - 3 * learned.scale_[n], c + 3 * learned.scale_[n]) for n, c in learned.center_.items()}
print("\nOutside the range of the catalogue:", int(filled.smgeo.flag_out_of_range().to_array().sum()), "values")
print("Three standard deviations from the mean of training stations, and values flagged of all stations")
flags = filled.smgeo.flag_outliers(3.0, stations=split.train)
table = pd.DataFrame([limits[n] for n in flags], list(flags), ["from", "to"]).round(2)
print(table.assign(flagged=[int(flags[n].sum()) for n in flags]).to_string())
for per_station in (False, True):
    choice = filled.smgeo.choose_z(split, features=FEATURES, per_station=per_station)
    print(f"choose_z, per_station={per_station}: {choice.z:g}", choice.table.round(5).to_string(index=False), sep="\n")
own = filled.smgeo.flag_outliers(choice.z, per_station=True)
kept, dropped = filled.smgeo.drop_outlier_rows(own, split.train)
print(f"Dropped: {dropped.rows} training rows, by variable {dropped.by_variable}")

# Scaling, fitted on training stations; any other station may fall outside 0 to 1.
scaled = kept.smgeo.scale("minmax", split.train)
print()
for part, ids in split.parts().items():
    values = scaled["soil_temperature"].sel(station=list(ids))
    print(f"Scaled soil temperature, {part}: {float(values.min()):.3f} to {float(values.max()):.3f}")
back = float(abs(scaled.smgeo.unscale()["sm"] - kept["sm"]).max())
print(f"Back in m3 m-3, soil moisture differs by at most {back:.0e}\n")

# Windows. A missing value becomes the mean of the training stations, beside a channel that says so.
means = scaled.sel(station=list(split.train))[FEATURES].mean()
fill = [float(means[f]) for f in FEATURES]


def windows(part, missing, **options):
    """Windows of 30 days of one part of the split, and what may be missing of them."""
    return scaled.sel(station=list(part)).smgeo.windows(FEATURES, "sm", LENGTH, missing, fill, **options)


complete = {part: windows(ids, 0.0) for part, ids in split.parts().items()}
half = {part: windows(ids, 0.5) for part, ids in split.parts().items()}
x, y = next(half["train"].batches(256, shuffle=True, seed=0))
observed = half["train"].gather(np.arange(len(half["train"])))[..., len(FEATURES) :]
print(f"Windows (number, days, channels): {half['train'].shape}; a batch: x {x.shape}, y {y.shape}, {x.dtype}")
print(f"Missing in windows that may lack half: {1 - observed.mean():.3%} of the values, all filled")
series = windows(cube["station"].values, 0.0, mode="sequence")
print(f"Sequences: {series.shape}, of whose days {int(series.mask.sum())} of {series.mask.size} count")
rainy = stations.smgeo.windows([*FEATURES[:5], "precipitation"], "sm", LENGTH)
print(f"With rain as a feature: {len(rainy)} windows; without any rain: {', '.join(rainy.left_out)}")


# What is left of each part. A row is a station and a day.
def count(ds):
    """Rows with a target, by part."""
    return {part: int(ds["sm"].sel(station=list(ids)).notnull().sum()) for part, ids in split.parts().items()}


rows = {
    "days of the cube": {part: len(ids) * cube.sizes["time"] for part, ids in split.parts().items()},
    "with soil moisture": count(cube),
    "without outliers": count(kept),
    "past the first 29 days": count(kept.isel(time=slice(LENGTH - 1, None))),
    "windows, half may be missing": {part: len(w) for part, w in half.items()},
    "windows, complete": {part: len(w) for part, w in complete.items()},
}
table = pd.DataFrame(rows).T.assign(removed=lambda t: -t.sum(axis=1).diff().fillna(0).astype(int))
print("\nRows left after each step", table.to_string(), sep="\n")

# ---- pictures

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "0.55"  # Okabe and Ito
PARTS = {"train": BLUE, "validation": ORANGE, "test": VERMILION}


def draw_gaps(axes):
    """A thinned series filled both ways, and held."""
    place = {"station": "DWD/Goettingen", "time": slice("2025-03-01", "2025-05-20")}
    every, seen = cube["soil_temperature"].sel(place), thinned["soil_temperature"].sel(place)
    before, after = seen["time"].values[seen.notnull()][[3, 4]]  # on either side of the clouds
    reach = np.timedelta64(3, "D")
    for ax, way, name in ((axes[0], both_ways, "both ways"), (axes[1], causal, "causal")):
        at = way.sel(place)
        made = at["soil_temperature"].where(at["soil_temperature_filled"])
        ax.axvspan(before + reach, after - reach if way is both_ways else after, color="0.92")
        middle = before + (after - before) / 2
        ax.text(middle, 0.06, "stays open", ha="center", color="0.3", transform=ax.get_xaxis_transform())
        ax.plot(every["time"], every, color=GREY, lw=1, label="every day")
        ax.plot(made["time"], made, "o", ms=3.5, color=ORANGE, label="filled")
        ax.plot(seen["time"], seen, "s", ms=5, color=BLUE, label="kept, every 6 days")
        ax.set(title=f"{place['station']}, {name}, L = 3 days", ylabel="soil temperature (°C)")
    axes[0].legend(ncols=3, loc="upper left")


def draw_split(axes):
    """Where the stations of each part are, and what soil moisture they hold."""
    ordered = cube["station"].values[np.argsort(cube["sm"].max("time").values)]
    for part, colour in PARTS.items():
        of = cube.sel(station=list(getattr(split, part)))
        axes[0].scatter(of["longitude"], of["latitude"], 45, colour, edgecolors="black", linewidths=0.5, label=part)
        height = [list(ordered).index(s) for s in of["station"].values]
        axes[1].hlines(height, of["sm"].min("time"), of["sm"].max("time"), colour, lw=5)
    forced = cube.sel(station=list(split.forced))
    axes[0].scatter(forced["longitude"], forced["latitude"], 160, "none", edgecolors="black", label="holds an extreme")
    axes[0].set(xlabel="longitude (°E)", ylabel="latitude (°N)", aspect=1.45)
    axes[0].legend(loc="lower right", fontsize=8)
    axes[1].set_yticks(
        range(len(ordered)), [f"{s.split('/')[1]}{' *' if s in split.forced else ''}" for s in ordered], fontsize=7
    )
    axes[1].set(xlabel="soil moisture, least to greatest (m3 m-3)", title="* holds an extreme value")


def draw_outliers(axes):
    """Limits of all training stations, and of a station's own series."""
    axes[0].plot(filled["time"], filled["soil_temperature"].T, color=GREY, lw=0.5)
    for z in (-5, -4, -3, 3, 4, 5):
        height = learned.center_["soil_temperature"] + z * learned.scale_["soil_temperature"]
        axes[0].axhline(height, color=BLUE, ls="--")
        axes[0].text(1.01, height, f"z = {z}", color=BLUE, va="center", transform=axes[0].get_yaxis_transform())
    axes[0].set(
        title=f"{filled.sizes['station']} stations, limits of training stations", ylabel="soil temperature (°C)"
    )
    place = "SMOSMANIA/PeyrusseGrande"
    moisture = filled["sm"].sel(station=place)
    mean, std = float(moisture.mean()), float(moisture.std())
    flagged = moisture.where(own["sm"].sel(station=place))
    axes[1].plot(moisture["time"], moisture, color=GREY, label="observed")
    axes[1].plot(flagged["time"], flagged, "o", ms=4, color=VERMILION, label="outside its own limits")
    for name, colour, low, high in (
        ("training stations, z = 3", BLUE, *limits["sm"]),
        ("its own, z = 3", ORANGE, mean - 3 * std, mean + 3 * std),
    ):
        axes[1].axhline(low, color=colour, ls="--")
        axes[1].axhline(high, color=colour, ls="--", label=name)
    axes[1].set(title=place, ylabel="soil moisture (m3 m-3)")
    axes[1].legend(loc="lower right", bbox_to_anchor=(1, 0.1), fontsize=8)


def draw_scaling(axes):
    """Soil moisture at training and test stations, scaled three ways."""
    for ax, kind in zip(axes, ("minmax", "robust", "standard"), strict=True):
        made = kept.smgeo.scale(kind, split.train)["sm"]
        for part in ("train", "test"):
            values = made.sel(station=list(getattr(split, part))).values
            values = values[np.isfinite(values)]
            share = np.full(values.size, 100 / values.size)
            ax.hist(values, 25, weights=share, histtype="step", lw=1.8, color=PARTS[part], label=part)
        ax.set(title=kind, xlabel="scaled soil moisture (no unit)")
    axes[0].set(ylabel="share of days (%)")
    axes[2].legend(fontsize=8)


def draw_windows(ax):
    """On which days of a thinned station windows end, and the days of one of them."""
    place = "DWD/Harzgerode"
    at, days = both_ways.sel(station=place), np.arange(cube.sizes["time"])

    def ends(missing):
        found = both_ways.sel(station=[place]).smgeo.windows(FEATURES, "sm", LENGTH, missing, [0.0] * len(FEATURES))
        return np.isin(days, found.time_index)

    lines = [
        ("soil moisture\nobserved", GREY, at["sm"].notnull().values),
        ("all features\nobserved or filled", GREY, at["soil_temperature"].notnull().values),
        ("a window ends,\nhalf may be missing", GREEN, ends(0.5)),
        ("a window ends,\ncomplete", BLUE, ends(0.0)),
    ]
    for height, (_, colour, there) in enumerate(lines):
        ax.vlines(days[there] + 0.5, -height - 0.3, -height + 0.3, colour, lw=1.6)
    last = days[lines[3][2]][40]
    ax.axvspan(last - LENGTH + 1, last + 1, facecolor=ORANGE, alpha=0.35, zorder=0)
    ax.text(last - LENGTH / 2 + 1, 0.5, "x", ha="center")
    ax.annotate("y", (last + 0.5, 0.3), (last + 8, 0.5), arrowprops={"arrowstyle": "->"})
    ax.set_yticks([-h for h in range(len(lines))], [name for name, _, _ in lines])
    ax.set(title=f"{place}, soil temperature thinned", xlabel="day of the series", ylim=(-3.5, 0.95))


def draw_sequences(ax):
    """The days that count in sequence mode."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    meaning = {"no soil moisture": "white", "no complete window": ORANGE, "counts": BLUE}
    state = cube["sm"].notnull().values.astype(int)
    state[series.station_index] += series.mask
    ax.imshow(state, aspect="auto", interpolation="none", cmap=ListedColormap(list(meaning.values())))
    ax.legend(handles=[Patch(fc=c, ec="black", label=name) for name, c in meaning.items()], loc="lower right")
    ax.set(xlabel="day of the series", ylabel="station")


def draw(folder):
    """Every picture of docs/preparation.md."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {"font.size": 10, "axes.titlesize": 10, "date.converter": "concise", "figure.constrained_layout.use": True}
    )
    folder.mkdir(parents=True, exist_ok=True)
    for work, shape, height in (
        (draw_gaps, (2, 1), 5),
        (draw_split, (1, 2), 4.5),
        (draw_outliers, (2, 1), 5),
        (draw_scaling, (1, 3), 2.8),
        (draw_windows, (1, 1), 3.4),
        (draw_sequences, (1, 1), 3.5),
    ):
        figure, axes = plt.subplots(*shape, figsize=(8, height))
        work(axes)
        figure.savefig(folder / f"preparation_{work.__name__.removeprefix('draw_')}.png", dpi=120)
        plt.close(figure)


if args.pictures:
    draw(args.pictures)
