// placeholder removed by the first real source
