"""Small scenes whose elements come, go or change shape."""

SUN = '<light pos="1 -1 3" dir="-.3 .3 -1" directional="true"/>'
FLOOR = '<geom type="plane" size="3 2 .1" rgba=".5 .6 .5 1"/>'
SKY = (
    '<asset><texture type="skybox" builtin="gradient" rgb1=".3 .5 .7" rgb2="0 0 0" width="64"'
    ' height="64"/>{}</asset>'
)

TENDONS = f"""
<mujoco>
  {SKY.format("")}
  <worldbody>{SUN}{FLOOR}
    <site name="a" pos="-1 0 1.2" size=".03"/><site name="c" pos=".2 -.5 1.5" size=".03"/>
    <site name="s" pos="0 0 1.6"/>
    <geom name="post" type="cylinder" size=".2 .3" pos="0 0 1.2" euler="90 0 0" rgba=".8 .4 .3 1"/>
    <geom name="ball" size=".2" pos="0 .8 .9" rgba=".3 .4 .8 1"/><site name="t" pos="0 .8 1.3"/>
    <site name="d" pos="-.8 .8 .9" size=".03"/>
    <body pos=".9 0 .9"><freejoint/><geom type="box" size=".15 .1 .2" rgba=".9 .8 .2 1"/>
      <site name="b" pos="0 0 .2" size=".03"/></body>
  </worldbody>
  <tendon>
    <spatial width=".02" rgba=".9 .1 .1 1" stiffness="30" damping="2">
      <site site="a"/><geom geom="post" sidesite="s"/><site site="b"/></spatial>
    <spatial limited="true" range="0 .6" width=".03" rgba=".1 .8 .3 1">
      <site site="c"/><site site="b"/></spatial>
    <spatial width=".015" rgba=".9 .9 .1 .5">
      <site site="d"/><geom geom="ball" sidesite="t"/><site site="b"/></spatial>
  </tendon>
</mujoco>"""

DECOR = f"""
<mujoco>
  <visual><scale jointlength="4" jointwidth=".5" actuatorlength="3" actuatorwidth=".6" com="1.2"
    framelength="3" framewidth=".3" contactwidth=".6" contactheight=".3" forcewidth=".4"
    connect=".8" light=".6" camera=".6" constraint=".5"/><map force=".05"/></visual>
  {SKY.format("")}
  <worldbody>{SUN}{FLOOR}
    <body pos="-.8 0 .28"><freejoint/><geom type="box" size=".2 .2 .25" rgba=".9 .8 .2 1"/></body>
    <body pos="0 0 .19"><freejoint/><geom size=".2" rgba=".3 .4 .8 1"/></body>
    <body pos=".8 0 .8"><joint name="hinge" axis="0 1 0"/><geom type="capsule" size=".08 .3"
      rgba=".8 .4 .3 1"/>
      <body pos="0 0 .4"><joint name="slide" type="slide" axis="1 0 0"/>
        <geom type="cylinder" size=".1 .15" rgba=".4 .8 .5 1"/>
        <body pos="0 .3 0"><joint name="ball" type="ball"/>
          <geom size=".1" rgba=".6 .6 .6 1"/></body>
      </body>
    </body>
    <camera name="lens" pos="-1 1 .8" xyaxes="0 -1 0 .3 0 1" focal=".02 .02" sensorsize=".02 .015"
      resolution="64 48"/>
  </worldbody>
  <actuator><motor joint="hinge" ctrllimited="true" ctrlrange="-1 1"/><motor joint="slide"
    ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>"""

SKIN = f"""
<mujoco>
  {
    SKY.format(
        '<texture name="chess" type="2d" builtin="checker" rgb1=".9 .2 .2" rgb2=".2 .2 .9"'
        ' width="64" height="64"/><material name="cloth" texture="chess"/>'
    )
}
  <worldbody>{SUN}{FLOOR}
    <body name="low" pos="0 0 .6"><geom size=".05"/>
      <body name="high" pos="0 0 .5"><joint name="bend" axis="0 1 0"/>
        <geom size=".05"/></body></body>
  </worldbody>
  <deformable>
    <skin name="plain" rgba=".9 .7 .3 1" face="0 1 2 1 3 2 2 3 4 3 5 4"
      vertex="-.3 .4 .4 .3 .4 .4 -.3 .4 .9 .3 .4 .9 -.3 .4 1.4 .3 .4 1.4">{{bones}}</skin>
    <skin name="chess" material="cloth" face="0 1 2 1 3 2 2 3 4 3 5 4"
      texcoord="0 0 1 0 0 .5 1 .5 0 1 1 1"
      vertex="-.3 -.4 .4 .3 -.4 .4 -.3 -.4 .9 .3 -.4 .9 -.3 -.4 1.4 .3 -.4 1.4">{{bones}}</skin>
  </deformable>
</mujoco>""".replace(
    "{bones}",
    '<bone body="low" bindpos="0 0 .6" bindquat="1 0 0 0" vertid="0 1 2 3" vertweight="1 1 .6 .6"/>'
    '<bone body="high" bindpos="0 0 1.1" bindquat="1 0 0 0" vertid="2 3 4 5"'
    ' vertweight=".4 .4 1 1"/>',
)

FLEX = f"""
<mujoco>
  {SKY.format("")}
  <worldbody>{SUN}{FLOOR}
    <flexcomp name="cloth" type="grid" count="9 9 1" spacing=".15 .15 .1" pos="0 0 1" radius=".02"
      dim="2" mass="1" rgba=".8 .3 .3 1"><edge equality="true"/><pin id="0 8"/></flexcomp>
    <flexcomp name="jelly" type="grid" count="4 4 4" spacing=".12 .12 .12" pos="-1 .3 .5"
      radius=".01" dim="3" mass="1" rgba=".2 .6 .9 1"><edge equality="true"/></flexcomp>
    <flexcomp name="rope" type="grid" count="12 1 1" spacing=".1 .1 .1" pos=".9 .2 1" radius=".03"
      dim="1" mass="1" rgba=".9 .8 .2 1"><edge equality="true"/><pin id="0"/></flexcomp>
  </worldbody>
</mujoco>"""
