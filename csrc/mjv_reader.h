// Fields of MuJoCo's visual structs, read through offsets that are looked up once.
#ifndef VLMRM_MJV_READER_H_
#define VLMRM_MJV_READER_H_

#include <cstdint>
#include <cstring>

#include "mujoco_api.h"

namespace vlmrm {

template <class T>
T get(const char* from, size_t offset) {
  T value;
  std::memcpy(&value, from + offset, sizeof value);
  return value;
}

template <class T>
void get(const char* from, size_t offset, T* to, int n) {
  std::memcpy(to, from + offset, n * sizeof(T));
}

// The fields of an mjvGeom that count here.
struct MjvGeom {
  int32_t type, dataid, objtype, objid, category, matid, texid, texuniform, texcoord;
  float size[3], pos[3], mat[9], rgba[4];
  float emission, specular, shininess, reflectance, texrepeat[2];
  bool casts;
};

struct GeomReader {
  explicit GeomReader(const MujocoApi& api)
      : size(api.at("mjvGeom")),
        type(api.at("mjvGeom.type")),
        dataid(api.at("mjvGeom.dataid")),
        objtype(api.at("mjvGeom.objtype")),
        objid(api.at("mjvGeom.objid")),
        category(api.at("mjvGeom.category")),
        matid(api.at("mjvGeom.matid")),
        texid(api.at("mjvGeom.texid")),
        texuniform(api.at("mjvGeom.texuniform")),
        texcoord(api.at("mjvGeom.texcoord")),
        extents(api.at("mjvGeom.size")),
        pos(api.at("mjvGeom.pos")),
        mat(api.at("mjvGeom.mat")),
        rgba(api.at("mjvGeom.rgba")),
        emission(api.at("mjvGeom.emission")),
        specular(api.at("mjvGeom.specular")),
        shininess(api.at("mjvGeom.shininess")),
        reflectance(api.at("mjvGeom.reflectance")),
        texrepeat(api.at("mjvGeom.texrepeat")),
        // Geoms without the field, before MuJoCo 4, all cast.
        castshadow(api.has("mjvGeom.castshadow") ? api.at("mjvGeom.castshadow") : size) {}

  void read(const char* from, MjvGeom* g) const {
    g->type = get<int32_t>(from, type);
    g->dataid = get<int32_t>(from, dataid);
    g->objtype = get<int32_t>(from, objtype);
    g->objid = get<int32_t>(from, objid);
    g->category = get<int32_t>(from, category);
    g->matid = get<int32_t>(from, matid);
    g->texid = get<int32_t>(from, texid);
    g->texuniform = get<int32_t>(from, texuniform);
    g->texcoord = get<int32_t>(from, texcoord);
    get(from, extents, g->size, 3);
    get(from, pos, g->pos, 3);
    get(from, mat, g->mat, 9);
    get(from, rgba, g->rgba, 4);
    g->emission = get<float>(from, emission);
    g->specular = get<float>(from, specular);
    g->shininess = get<float>(from, shininess);
    g->reflectance = get<float>(from, reflectance);
    get(from, texrepeat, g->texrepeat, 2);
    g->casts = castshadow == size || get<uint8_t>(from, castshadow) != 0;
  }

  size_t size, type, dataid, objtype, objid, category, matid, texid, texuniform, texcoord, extents, pos, mat,
      rgba, emission, specular, shininess, reflectance, texrepeat, castshadow;
};

// Of an mjvLight.
struct LightReader {
  explicit LightReader(const MujocoApi& api)
      : size(api.at("mjvLight")),
        pos(api.at("mjvLight.pos")),
        dir(api.at("mjvLight.dir")),
        type(api.at("mjvLight.type")),
        attenuation(api.at("mjvLight.attenuation")),
        cutoff(api.at("mjvLight.cutoff")),
        exponent(api.at("mjvLight.exponent")),
        ambient(api.at("mjvLight.ambient")),
        diffuse(api.at("mjvLight.diffuse")),
        specular(api.at("mjvLight.specular")),
        headlight(api.at("mjvLight.headlight")),
        castshadow(api.at("mjvLight.castshadow")) {}

  size_t size, pos, dir, type, attenuation, cutoff, exponent, ambient, diffuse, specular, headlight,
      castshadow;
};

// Of an mjvGLCamera.
struct CameraReader {
  explicit CameraReader(const MujocoApi& api)
      : size(api.at("mjvGLCamera")),
        pos(api.at("mjvGLCamera.pos")),
        forward(api.at("mjvGLCamera.forward")),
        up(api.at("mjvGLCamera.up")) {}

  size_t size, pos, forward, up;
};

// Of an mjvScene: what is not of MjvScene's own.
struct SceneReader {
  explicit SceneReader(const MujocoApi& api)
      : nlight(api.at("mjvScene.nlight")),
        lights(api.at("mjvScene.lights")),
        camera(api.at("mjvScene.camera")),
        skinvertadr(api.at("mjvScene.skinvertadr")),
        skinvert(api.at("mjvScene.skinvert")),
        skinnormal(api.at("mjvScene.skinnormal")),
        flexfaceused(api.at("mjvScene.flexfaceused")),
        flexfaceadr(api.at("mjvScene.flexfaceadr")),
        flexface(api.at("mjvScene.flexface")),
        flexnormal(api.at("mjvScene.flexnormal")),
        flextexcoord(api.at("mjvScene.flextexcoord")),
        flexvertadr(api.at("mjvScene.flexvertadr")),
        flexvertnum(api.at("mjvScene.flexvertnum")),
        flexvert(api.at("mjvScene.flexvert")),
        flexedgeadr(api.at("mjvScene.flexedgeadr")),
        flexedgenum(api.at("mjvScene.flexedgenum")),
        flexedge(api.at("mjvScene.flexedge")),
        flexvertopt(api.at("mjvScene.flexvertopt")),
        flexedgeopt(api.at("mjvScene.flexedgeopt")),
        flexskinopt(api.at("mjvScene.flexskinopt")) {}

  size_t nlight, lights, camera, skinvertadr, skinvert, skinnormal, flexfaceused, flexfaceadr,
      flexface, flexnormal, flextexcoord, flexvertadr, flexvertnum, flexvert, flexedgeadr,
      flexedgenum, flexedge, flexvertopt, flexedgeopt, flexskinopt;
};

}  // namespace vlmrm

#endif  // VLMRM_MJV_READER_H_
