"""Forward models against values worked out from the cited formulas, and the water balance."""

import numpy as np
import pytest

from smgeo.sources.world import physics


def _soil(theta_s=0.45, b=5.0, k_s=500.0, psi_s=200.0, theta_fc=0.27, theta_wp=0.12):
    return physics.Soil(*(np.array([v]) for v in (theta_s, b, psi_s, k_s, theta_fc, theta_wp)))


def _day(water, soil=None, **changes):
    day = {"rain": 0.0, "air_degc": 15.0, "soil_degc": 12.0, "demand": 0.0, "lai": 0.0, "tilt": 0.0, "outflow": 1.0}
    arrays = {k: np.array([v]) for k, v in (day | changes).items()}
    return physics.step_water(physics.Water(*(np.array([v]) for v in water)), soil or _soil(), **arrays)


@pytest.mark.parametrize(
    ("water", "changes"),
    [
        ((20.0, 100.0, 0.0), {"rain": 12.0, "demand": 4.0, "lai": 2.0}),
        ((44.0, 224.0, 0.0), {"rain": 90.0, "demand": 3.0, "lai": 1.0, "outflow": 0.01, "tilt": 0.3}),
        ((30.0, 150.0, 60.0), {"rain": 10.0, "air_degc": 5.0, "demand": 1.0}),
        ((30.0, 150.0, 60.0), {"rain": 10.0, "air_degc": -5.0, "soil_degc": -2.0, "demand": 1.0}),
        ((2.0, 10.0, 0.0), {"demand": 9.0, "lai": 5.0}),
    ],
)
def test_water_balance_closes(water, changes):
    after, fluxes = _day(water, **changes)
    stored = sum(float(v[0]) for v in after) - sum(water)
    assert stored == pytest.approx(changes.get("rain", 0.0) - sum(float(v[0]) for v in fluxes), abs=1e-9)
    assert 0.0 <= after.surface[0] <= 45.0 + 1e-9
    assert 0.0 <= after.root[0] <= 225.0 + 1e-9
    assert all(v[0] >= -1e-9 for v in fluxes)


def test_snow_falls_melts_and_shields():
    # -5 degC: all 10 mm lie; nothing evaporates under snow. 5 degC: 4 mm a degree and day melt, 20 of 60 mm
    cold, fluxes = _day((10.0, 60.0, 0.0), rain=10.0, air_degc=-5.0, demand=2.0)
    assert cold.snow[0] == 10.0
    assert fluxes.evapotranspiration[0] == 0.0
    warm, _ = _day((10.0, 60.0, 60.0), air_degc=5.0)
    assert warm.snow[0] == 40.0


def test_interception_is_the_smallest_of_rain_store_and_demand():
    # leaf area 5 holds 1 mm; a soil at 0.02 m3 m-3 gives nothing to roots below its wilting point of 0.12
    _, fluxes = _day((0.0, 0.0, 0.0), rain=0.5, demand=3.0, lai=5.0)
    assert fluxes.evapotranspiration[0] == pytest.approx(0.5)


def test_gravity_drainage_agrees_with_small_steps():
    b, k_s, storage, s = 4.0, 300.0, 45.0, 0.9
    for _ in range(200_000):
        s -= k_s * s ** (2 * b + 3) / storage / 200_000
    assert physics.drained(np.array(0.9), np.array(b), np.array(k_s), np.array(storage)) == pytest.approx(s, rel=1e-4)


def test_cosby_loam_by_hand():
    # 40 % sand, 20 % clay: theta_s = 0.489 - 0.0504, b = 2.91 + 3.18, psi_s = 10 x 10^(1.88 - 0.524) = 226.99 mm,
    # k_s = 0.0070556 x 10^(-0.884 + 0.612) mm/s = 0.0037718 mm/s = 325.9 mm/d
    zero = np.array(0.0)
    soil = physics.soil_hydraulics(
        np.array(40.0), np.array(20.0), porosity=zero, log_conductivity=zero, exponent=zero + 1
    )
    assert soil.theta_s == pytest.approx(0.4386)
    assert soil.b == pytest.approx(6.09)
    assert soil.psi_s == pytest.approx(226.99, rel=1e-4)
    assert soil.k_s == pytest.approx(325.9, rel=1e-3)
    # theta_fc = 0.4386 (0.1 / 325.9)^(1 / 15.18) = 0.4386 x 0.5868; theta_wp = 0.4386 x 0.34429
    assert soil.theta_fc == pytest.approx(0.2574, abs=2e-4)
    assert soil.theta_wp == pytest.approx(0.1510, abs=1e-4)


def test_extraterrestrial_radiation_and_hargreaves_of_fao56():
    # FAO-56, example 8: 20 degrees south, 3 September, 32.2 MJ m-2 d-1
    assert physics.extraterrestrial_radiation(np.array(-20.0), 246) == pytest.approx(32.2, abs=0.1)
    # FAO-56, example 20: 45 N in July, Ra 40.6, 26.6 and 14.8 degC: 5.0 mm d-1
    assert physics.potential_evaporation(np.array(40.55), np.array(20.7), np.array(11.8)) == pytest.approx(
        5.0, abs=0.05
    )
    assert physics.extraterrestrial_radiation(np.array(80.0), 355) == pytest.approx(0.0, abs=1e-9)


def test_bare_soil_backscatter_by_hand():
    # 45 degrees, 20 %, k s = 1: VV = 10^-1.138 x 0.70711^1.528 x 10^0.16, VH = 10^-2.325 x 0.70711^-0.01 x 10^0.22
    vv, vh = physics.soil_backscatter(np.array(0.20), np.array(45.0), np.array(1.0))
    assert 10 * np.log10(vv) == pytest.approx(-11.38 - 2.300 + 1.6, abs=0.002)
    assert 10 * np.log10(vh) == pytest.approx(-23.25 + 0.015 + 2.2, abs=0.002)


def test_water_cloud_by_hand_and_its_limits():
    # 60 degrees: cos = 0.5. A 0.1, B 0.25, V 1: T = exp(-1) = 0.36788; 0.1 x 0.5 x 0.63212 + 0.36788 x 0.2 = 0.10518
    power = physics.water_cloud(np.array(0.2), np.array(1.0), np.array(60.0), a=0.1, b=0.25)
    assert power == pytest.approx(0.10518, abs=1e-5)
    assert physics.water_cloud(np.array(0.2), np.array(0.0), np.array(40.0), a=0.1, b=0.5) == pytest.approx(0.2)


@pytest.mark.parametrize("ndvi", [0.0, 0.3, 0.6])
def test_drier_soil_scatters_less(ndvi):
    theta = np.linspace(0.03, 0.45, 15)
    for soil, (a, b) in zip(physics.soil_backscatter(theta, 38.0, 1.3), physics.WATER_CLOUD.values(), strict=True):
        assert (np.diff(physics.water_cloud(soil, np.array(ndvi), 38.0, a=a, b=b)) > 0).all()


def test_wet_soil_is_dark_and_leaves_hide_it():
    assert physics.soil_reflectance("b11", np.array(0.0), np.array(1.0)) == pytest.approx(0.38)
    # 0.16 + 0.22 exp(-5 x 0.2) = 0.16 + 0.22 x 0.36788
    assert physics.soil_reflectance("b11", np.array(0.2), np.array(1.0)) == pytest.approx(0.24093, abs=1e-5)
    full = {"brightness": np.array(1.0), "cover": np.array(1.0), "stress": np.array(0.0), "snow_cover": np.array(0.0)}
    assert physics.surface_reflectance("b8", np.array(0.1), **full) == pytest.approx(0.45)
    assert physics.surface_reflectance("b4", np.array(0.1), **full | {"snow_cover": np.array(1.0)}) == pytest.approx(
        0.83
    )


def test_brightness_temperature_between_ground_and_air():
    ground, air = np.array(40.0), np.array(25.0)
    b10, b11 = (float(physics.brightness_temperature(b, ground, air, np.array(1.0))) for b in ("l8_b10", "l8_b11"))
    assert 25.0 + 273.15 - 10.0 < b11 < b10 < 40.0 + 273.15
    # dry and cold air is transparent: the ground's temperature less some 1 % of emissivity, 0.5 to 0.9 K
    assert 273.15 - float(physics.brightness_temperature("l8_b10", np.array(0.0), np.array(-40.0), np.array(1.0))) < 2.0


def test_evaporation_cools():
    args = (np.array(20.0), np.array(40.0))
    dry, wet = (physics.surface_temperature(*args, np.array(ef), np.array(1.0)) for ef in (0.0, 0.9))
    assert 10.0 < dry - wet < 25.0
    assert physics.surface_temperature(*args, np.array(1.0), np.array(1.0)) == pytest.approx(20.0)


def test_horn_on_planes():
    y, x = np.mgrid[:6, :6] * 100.0
    inner = (slice(1, -1), slice(1, -1))
    slope, aspect = physics.slope_aspect(-x, 100.0)  # falls to the east by 45 degrees
    np.testing.assert_allclose(slope[inner], 45.0)
    np.testing.assert_allclose(aspect[inner], 90.0)
    np.testing.assert_allclose(physics.slope_aspect(-y, 100.0)[1][inner], 180.0)  # falls to the south
    np.testing.assert_allclose(physics.slope_aspect(y, 100.0)[1][inner] % 360.0, 0.0)
    np.testing.assert_allclose(physics.slope_aspect(x, 100.0)[1][inner], 270.0)


def test_ice_leaves_little_liquid():
    # at -1 degC suction is 3.34e5 / (9.81 x 272.15) m = 125.1 m: 0.45 (125100 / 200)^(-1/5) = 0.1242
    theta = np.array([0.30, 0.10, 0.30])
    liquid = physics.liquid_water(theta, np.array([-1.0, -1.0, 1.0]), _soil())
    np.testing.assert_allclose(liquid, [0.1242, 0.10, 0.30], atol=1e-4)


def test_random_draws_have_their_distributions():
    from scipy import stats

    z = np.linspace(-5, 5, 101)
    np.testing.assert_allclose(physics.normal_cdf(z), stats.norm.cdf(z), atol=1e-7)
    p = np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999])
    np.testing.assert_allclose(physics.gamma_quantiles(0.75, p), stats.gamma.ppf(p, 0.75, scale=1 / 0.75), rtol=1e-3)
    noise = physics.speckle(np.random.default_rng(0), (400, 400), 40.0)
    assert noise.mean() == pytest.approx(1.0, abs=0.002)
    assert noise.var() == pytest.approx(1 / 40, rel=0.03)


def test_random_fields_have_their_correlation():
    # exp(-d^2 / (2 length^2)) at 4 pixels with length 4: 0.607
    amplitude = physics.spectral_filter((256, 256), length=4.0)
    first, second = physics.random_fields(np.random.default_rng(1), amplitude)
    assert first.std() == pytest.approx(1.0, abs=0.06)
    assert np.mean(first * np.roll(first, 4, axis=1)) / first.var() == pytest.approx(0.607, abs=0.06)
    assert abs(np.mean(first * second)) < 0.06


def test_markov_chain_keeps_its_share_and_memory():
    rng = np.random.default_rng(2)
    wet, runs = np.zeros(4000, bool), []
    for _ in range(200):
        wet = rng.random(4000) < physics.wet_probability(wet, np.full(4000, 0.3), 0.4)
        runs.append(wet)
    series = np.array(runs[50:])
    assert series.mean() == pytest.approx(0.3, abs=0.01)
    assert np.corrcoef(series[1:].ravel(), series[:-1].ravel())[0, 1] == pytest.approx(0.4, abs=0.02)


def test_growing_season_follows_warmth_and_water():
    green = np.array([0.0, 0.0, 0.0])
    for _ in range(150):
        green = physics.step_greenness(green, np.array([20.0, 20.0, -5.0]), np.array([1.0, 0.0, 1.0]))
    assert green[0] > 0.99
    assert green[1] == green[2] == 0.0
