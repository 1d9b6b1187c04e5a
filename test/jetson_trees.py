"""Files of /sys as a Jetson has them, below a root of the test's own."""


def write_tree(root, files):
    """Write files by path, with a line's end as the kernel gives it; return the root."""
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + '\n')
    return root


def orin_tree(root):
    """Write what a Jetson AGX Orin with JetPack 6 tells while it does well; return the root."""
    return write_tree(root, {
        'proc/device-tree/model': 'NVIDIA Jetson AGX Orin Developer Kit\0',
        'sys/class/thermal/thermal_zone0/type': 'cpu-thermal',
        'sys/class/thermal/thermal_zone0/temp': '49500',
        'sys/class/thermal/thermal_zone0/trip_point_0_type': 'critical',
        'sys/class/thermal/thermal_zone0/trip_point_0_temp': '104500',
        'sys/class/thermal/thermal_zone0/trip_point_1_type': 'passive',
        'sys/class/thermal/thermal_zone0/trip_point_1_temp': '99000',
        'sys/class/thermal/thermal_zone0/trip_point_2_type': 'active',
        'sys/class/thermal/thermal_zone0/trip_point_2_temp': '40000',
        'sys/class/thermal/thermal_zone1/type': 'gpu-thermal',
        'sys/class/thermal/thermal_zone1/temp': '47000',
        'sys/class/thermal/thermal_zone2/type': 'cv0-thermal',
        'sys/class/thermal/thermal_zone2/temp': '-256000',
        'sys/class/thermal/thermal_zone3/type': 'tj-thermal',
        'sys/class/thermal/thermal_zone3/temp': '50500',
        'sys/class/thermal/cooling_device0/type': 'pwm-fan',
        'sys/class/thermal/cooling_device0/cur_state': '2',
        'sys/class/thermal/cooling_device1/type': 'cpufreq-cpu0',
        'sys/class/thermal/cooling_device1/cur_state': '0',
        'sys/class/hwmon/hwmon1/name': 'ina3221',
        'sys/class/hwmon/hwmon1/in1_label': 'VDD_GPU_SOC',
        'sys/class/hwmon/hwmon1/in1_input': '5000', 'sys/class/hwmon/hwmon1/curr1_input': '1500',
        'sys/class/hwmon/hwmon1/in2_label': 'VDD_CPU_CV',
        'sys/class/hwmon/hwmon1/in2_input': '4984', 'sys/class/hwmon/hwmon1/curr2_input': '300',
        'sys/class/hwmon/hwmon1/in3_label': 'VIN_SYS_5V0',
        'sys/class/hwmon/hwmon1/in3_input': '4968', 'sys/class/hwmon/hwmon1/curr3_input': '729',
        'sys/class/hwmon/hwmon1/in7_label': 'sum of shunt voltages',
        'sys/class/hwmon/hwmon1/in7_input': '760', 'sys/class/hwmon/hwmon1/curr4_input': '360',
        'sys/class/hwmon/hwmon2/name': 'ina3221',
        'sys/class/hwmon/hwmon2/in2_label': 'VDDQ_VDD2_1V8AO',
        'sys/class/hwmon/hwmon2/in2_input': '1800', 'sys/class/hwmon/hwmon2/curr2_input': '341',
        'sys/class/hwmon/hwmon3/name': 'soctherm_oc',
        'sys/class/hwmon/hwmon3/oc1_event_cnt': '0', 'sys/class/hwmon/hwmon3/oc2_event_cnt': '15',
        'sys/class/hwmon/hwmon3/oc3_event_cnt': '37',
        'sys/class/devfreq/17000000.gpu/cur_freq': '1300500000',
        'sys/class/devfreq/17000000.gpu/device/load': '432',
        'sys/class/devfreq/15340000.vic/cur_freq': '115200000',
        'sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq': '2000000',
        'sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq': '1000000'})
